//! How much peers may send us unasked: a share per stream, out of one budget per process.
//!
//! What was promised must be taken, so the sum of promises bounds what stopped readers can cost.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a stream starts with, in bytes: no less than TCP does. It keeps this while it is idle, so that more would leave many idle streams little
/// for those that need it.
pub(crate) const INITIAL: u64 = 64 << 10;
/// What a stream may grow to while its reader keeps up, in bytes: 200 MiB/s over 40 ms.
pub const LARGEST: u64 = 8 << 20;
/// What a stream starts with where the budget is short, in bytes.
const SMALLEST: u64 = 8 << 10;
/// The sum of all promises of a process, in bytes, where its memory is not limited further.
pub const TOTAL: u64 = 64 << 20;
/// Of a smaller limit of memory, the part that promises may take is one in so many.
const PART: u64 = 4;
/// Where the kernel tells the limit of this container (cgroups(7)), in version 2 and in version 1.
const LIMITS: [&str; 2] = [
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
];

/// The sum of promises that may stand at a time.
#[derive(Debug)]
pub struct Budget {
    total: u64,
    sums: Mutex<Sums>,
}

#[derive(Debug)]
struct Sums {
    /// What may be promised now: all, or what the other end can bear.
    limit: u64,
    promised: u64,
}

impl Budget {
    /// A budget of `total` bytes.
    pub fn new(total: u64) -> Arc<Budget> {
        Arc::new(Budget {
            total,
            sums: Mutex::new(Sums {
                limit: total,
                promised: 0,
            }),
        })
    }

    /// The budget that suits the memory this process may use.
    pub fn of_this_process() -> Arc<Budget> {
        let limit = LIMITS
            .iter()
            .find_map(|path| std::fs::read_to_string(path).ok()?.trim().parse().ok());
        Budget::new(suitable(limit))
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this process can bear, in bytes.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// From now on, promises no more than an end with a budget of `other` bytes can bear, which keeps what it sends until it has arrived.
    /// Promises that stand, stay.
    pub fn limit(&self, other: u64) {
        self.sums().limit = self.total.min(other);
    }

    /// The share of a new stream; `None` if not even the smallest is left. The last quarter is for small shares only.
    pub fn share(self: &Arc<Budget>) -> Option<Share> {
        let mut sums = self.sums();
        let left = (sums.limit / 4 * 3).saturating_sub(sums.promised);
        let bytes = (left / 16).clamp(SMALLEST, INITIAL);
        if sums.promised + bytes > sums.limit {
            return None;
        }
        sums.promised += bytes;
        Some(Share {
            budget: self.clone(),
            bytes,
        })
    }

    /// Bytes promised at this moment.
    pub fn in_use(&self) -> u64 {
        self.sums().promised
    }
}

fn suitable(limit: Option<u64>) -> u64 {
    limit.map_or(TOTAL, |limit| (limit / PART).clamp(SMALLEST, TOTAL))
}

/// What one stream's peer may send beyond what was read. Given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Share {
    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Doubles the share, where the budget has it: growth takes no more than half of all, so that new streams find something.
    pub fn extend(&mut self) -> bool {
        let mut sums = self.budget.sums();
        if self.bytes * 2 > LARGEST || sums.promised + self.bytes > sums.limit / 2 {
            return false;
        }
        sums.promised += self.bytes;
        self.bytes *= 2;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.sums().promised -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_share_doubles_up_to_the_largest() {
        let budget = Budget::new(TOTAL);
        let mut share = budget.share().unwrap();
        assert_eq!(share.bytes(), INITIAL);
        while share.extend() {}
        assert_eq!(share.bytes(), LARGEST);
        drop(share);
        assert_eq!(budget.in_use(), 0);
    }

    #[test]
    fn a_small_container_promises_a_quarter_of_its_memory() {
        assert_eq!(suitable(None), TOTAL);
        assert_eq!(suitable(Some(u64::MAX)), TOTAL);
        assert_eq!(suitable(Some(32 << 20)), 8 << 20);
        assert_eq!(suitable(Some(0)), SMALLEST);
    }

    #[test]
    fn what_is_left_decides_what_a_stream_begins_with() {
        let budget = Budget::new(1 << 20);
        let shares = [(); 2].map(|()| budget.share().unwrap());
        assert_eq!(shares.map(|share| share.bytes() >> 10), [48, 45]);
        assert!(Budget::new(SMALLEST - 1).share().is_none());
        let budget = Budget::new(SMALLEST);
        let last = budget.share().unwrap();
        assert_eq!(last.bytes(), SMALLEST);
        assert!(budget.share().is_none());
    }

    #[test]
    fn half_of_all_is_for_growth() {
        let budget = Budget::new(TOTAL);
        let mut shares = vec![];
        while budget.in_use() < TOTAL / 2 {
            let mut share = budget.share().unwrap();
            while share.extend() {}
            assert_eq!(share.bytes(), LARGEST);
            shares.push(share);
        }
        let mut late = budget.share().unwrap();
        assert!(!late.extend());
    }

    #[test]
    fn idle_streams_leave_room_for_growth() {
        let budget = Budget::new(TOTAL);
        let _idle: Vec<_> = (0..300).map(|_| budget.share().unwrap()).collect();
        let mut busy = budget.share().unwrap();
        while busy.extend() {}
        assert_eq!(busy.bytes(), LARGEST);
    }

    #[test]
    fn an_odd_share_grows_no_larger_than_others() {
        let budget = Budget::new(TOTAL);
        let mut others = vec![];
        let mut odd = budget.share().unwrap();
        while odd.bytes() == INITIAL {
            others.push(std::mem::replace(&mut odd, budget.share().unwrap()));
        }
        drop(others);
        while odd.extend() {}
        assert!(odd.bytes() > LARGEST / 2 && odd.bytes() <= LARGEST);
    }

    #[test]
    fn a_thousand_streams_have_a_share_each() {
        let budget = Budget::new(TOTAL);
        let shares: Vec<_> = (0..1000).map(|_| budget.share().unwrap()).collect();
        assert!(budget.in_use() <= TOTAL);
        assert!(shares.iter().all(|share| share.bytes() >= SMALLEST));
    }

    #[test]
    fn a_limit_is_for_promises_to_come() {
        let budget = Budget::new(1 << 20);
        let mut share = budget.share().unwrap();
        let before = share.bytes();
        budget.limit(before);
        assert_eq!((share.bytes(), budget.in_use()), (before, before));
        assert!(!share.extend() && budget.share().is_none());
        budget.limit(TOTAL);
        while share.extend() {}
        assert!(share.bytes() > before && share.bytes() <= (1 << 20) / 2);
        assert_eq!(budget.total(), 1 << 20);
    }

    proptest! {
        /// Whatever is asked for in whatever order, the sum stays within the budget and is what the shares say.
        #[test]
        fn the_sum_is_bounded_and_exact(total in SMALLEST..2 * TOTAL, acts in prop::collection::vec((0u8..3, any::<prop::sample::Index>()), 0..400)) {
            let budget = Budget::new(total);
            let mut shares = vec![];
            for (act, which) in acts {
                match act {
                    0 => shares.extend(budget.share()),
                    1 if !shares.is_empty() => { shares.remove(which.index(shares.len())); }
                    2 if !shares.is_empty() => { let n = shares.len(); shares[which.index(n)].extend(); }
                    _ => {}
                }
                prop_assert!(budget.in_use() <= total);
                prop_assert_eq!(budget.in_use(), shares.iter().map(Share::bytes).sum::<u64>());
            }
        }
    }
}
