//! Things that are kept for as long as they are used.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;
use tokio::time::Instant;

/// A bounded number of things: one more takes the place of those that have been idle for too long, or of the one that has been for longest.
#[derive(Debug)]
pub struct Recent<K, V> {
    things: HashMap<K, (V, Instant)>,
    limit: usize,
    idle: Duration,
}

impl<K: Hash + Eq + Clone, V> Recent<K, V> {
    /// None yet, and never more than `limit`; idle for `idle` is too long.
    pub fn new(limit: usize, idle: Duration) -> Recent<K, V> {
        Recent {
            things: HashMap::new(),
            limit,
            idle,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.things.is_empty()
    }

    /// The thing of that key, which is used now.
    pub fn get(&mut self, key: &K) -> Option<&mut V> {
        let (thing, used) = self.things.get_mut(key)?;
        *used = Instant::now();
        Some(thing)
    }

    /// The thing of that key, if there is one, is used now.
    pub fn touch(&mut self, key: &K) {
        let _ = self.get(key);
    }

    /// Adds a thing, which is used now.
    pub fn insert(&mut self, key: K, thing: V) {
        let idle = self.idle;
        self.things.retain(|_, (_, used)| used.elapsed() < idle);
        if !self.things.contains_key(&key) && self.things.len() >= self.limit {
            let idle = self.things.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(key) = idle.map(|(key, _)| key.clone()) {
                self.things.remove(&key);
            }
        }
        self.things.insert(key, (thing, Instant::now()));
    }

    /// Takes a thing out.
    pub fn remove(&mut self, key: &K) {
        self.things.remove(key);
    }

    /// When a thing was used last.
    pub fn used(&self, key: &K) -> Option<Instant> {
        self.things.get(key).map(|(_, used)| *used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_one_that_is_idle_for_longest_makes_place() {
        let mut recent = Recent::new(3, SECOND * 60);
        for key in 0..3 {
            recent.insert(key, key);
            sleep(SECOND).await;
        }
        assert_eq!(recent.get(&0), Some(&mut 0));
        recent.insert(2, 20);
        recent.insert(3, 3);
        assert_eq!(recent.used(&1), None);
        assert_eq!(recent.get(&0), Some(&mut 0));
        assert_eq!(recent.get(&2), Some(&mut 20));
        assert_eq!(recent.get(&3), Some(&mut 3));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_idle_for_too_long_makes_place() {
        let mut recent = Recent::new(3, SECOND * 2);
        recent.insert('a', ());
        recent.insert('b', ());
        sleep(SECOND).await;
        recent.touch(&'a');
        recent.touch(&'z');
        assert_eq!(recent.used(&'a'), Some(Instant::now()));
        sleep(SECOND).await;
        recent.insert('c', ());
        assert!(recent.used(&'a').is_some());
        assert!(recent.used(&'b').is_none() && recent.used(&'z').is_none());
        recent.remove(&'a');
        recent.remove(&'c');
        assert!(recent.is_empty());
    }
}
