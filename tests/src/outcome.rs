//! The outcome of a test, and of its parts.

use std::fmt::Display;

/// What a test returns. Its `?` panics where it stands, so that what is dropped on the way knows of the failure and shows all
/// there is to see (`std::thread::panicking`).
pub type Outcome<T = ()> = Result<T, Failed>;

/// Never made: its `From` panics.
#[derive(Debug)]
pub enum Failed {}

impl<E: Display> From<E> for Failed {
    #[track_caller]
    fn from(error: E) -> Failed {
        panic!("{error:#}")
    }
}
