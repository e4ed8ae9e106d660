//! The addresses that are in the table's sets, so many at most.

use super::local::Side;
use super::table::Group;
use lru::LruCache;
use std::net::IpAddr;
use std::num::NonZeroUsize;

/// How many addresses are in the sets at most. It is to be more than programs have use for at a time: one that is left out leads as it would by itself,
/// until it is handed out again.
const LIMIT: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// An address in a set.
pub(super) type Member = (IpAddr, Group);

/// A change of the sets, to be made as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) added: Member,
    pub(super) removed: Option<Member>,
}

/// What is in the sets.
pub(super) struct Members(LruCache<Place, Group>);

/// Where an address is at most once: on one of the sides, and among those of each name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Place {
    address: IpAddr,
    name: Option<usize>,
}

impl Place {
    fn of((address, group): Member) -> Place {
        let name = match group {
            Group::Led(_) => None,
            Group::Named(index) => Some(index),
        };
        Place { address, name }
    }
}

impl Members {
    pub(super) fn new() -> Members {
        Members(LruCache::new(LIMIT))
    }

    /// To which side `address` is led.
    pub(super) fn side(&self, address: IpAddr) -> Option<Side> {
        let name = None;
        match self.0.peek(&Place { address, name })? {
            Group::Led(side) => Some(*side),
            Group::Named(_) => None,
        }
    }

    /// What has to be changed for `member` to be in, which is in use from now on: the address leaves the other side, or, where there is no
    /// room, the one that was in no use for the longest time goes. `None` if it is in.
    pub(super) fn change(&mut self, member: Member) -> Option<Change> {
        let place = Place::of(member);
        let removed = match self.0.get(&place).copied() {
            Some(group) if group == member.1 => return None,
            Some(before) => Some((member.0, before)),
            None if self.0.len() < self.0.cap().get() => None,
            None => {
                let oldest = self.0.peek_lru();
                oldest.map(|(place, group)| (place.address, *group))
            }
        };
        Some(Change {
            added: member,
            removed,
        })
    }

    /// A change was made.
    pub(super) fn changed(&mut self, Change { added, .. }: Change) {
        self.0.put(Place::of(added), added.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(members: &mut Members, member: Member) -> Option<Option<Member>> {
        let change = members.change(member)?;
        assert_eq!(change.added, member);
        members.changed(change);
        Some(change.removed)
    }

    #[test]
    fn the_one_that_was_in_no_use_for_longest_makes_room() {
        let mut members = Members(LruCache::new(NonZeroUsize::new(3).unwrap()));
        let [a, b, c]: [IpAddr; 3] =
            ["192.0.2.1", "fd00::2", "192.0.2.3"].map(|text| text.parse().unwrap());
        let (local, remote) = (Group::Led(Side::Local), Group::Led(Side::Remote));
        let name = Group::Named;
        assert_eq!(put(&mut members, (a, local)), Some(None));
        assert_eq!(put(&mut members, (b, name(0))), Some(None));
        assert_eq!(put(&mut members, (b, name(1))), Some(None), "of both names");
        assert_eq!(put(&mut members, (a, local)), None, "in, and in use");
        assert_eq!(members.side(a), Some(Side::Local));
        assert_eq!(members.side(b), None, "no more than a name has it");
        // There is no room, but this one needs none.
        assert_eq!(put(&mut members, (a, remote)), Some(Some((a, local))));
        assert_eq!(members.side(a), Some(Side::Remote));
        assert_eq!(put(&mut members, (c, name(1))), Some(Some((b, name(0)))));
        assert_eq!(put(&mut members, (b, name(1))), None);
        assert_eq!(put(&mut members, (c, local)), Some(Some((a, remote))));
        assert_eq!(members.side(a), None);
        assert_eq!(put(&mut members, (a, remote)), Some(Some((c, name(1)))));
    }

    #[test]
    fn what_was_not_done_is_to_be_done_again() {
        let mut members = Members::new();
        let member = ("192.0.2.1".parse().unwrap(), Group::Led(Side::Remote));
        assert!(members.change(member).is_some());
        assert!(members.change(member).is_some());
    }
}
