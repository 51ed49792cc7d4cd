//! A counting semaphore for a resource that clients hold: limits its units in all, for one address and for one buyer.
//!
//! A [`Permit`] is released on drop. Acquiring never waits.

use super::{Class, Holder};
use stampede_chassis::Block;
use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The limits of a pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolBounds {
    /// Name of the resource, in metrics.
    pub name: &'static str,
    /// Its name in a refusal, such as "requests are under way".
    pub what: &'static str,
    pub total: usize,
    /// Units of one address; without effect if it is not less than `total`.
    pub of_address: usize,
    /// Units of one buyer; likewise.
    pub of_user: usize,
    /// The share of all units that is reserved for a class, in percent.
    pub kept_percent: fn(Class) -> usize,
}

/// The owner of the limit that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// All clients together.
    All,
    Address,
    User,
}

impl By {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::All, Self::Address, Self::User];

    /// Returns the name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Address => "address",
            Self::User => "user",
        }
    }
}

/// A pool, shared by all requests.
#[derive(Debug)]
pub struct Pool {
    pub bounds: PoolBounds,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Used units that are reserved for no class.
    common: usize,
    /// Used units that are reserved for each class.
    kept: [usize; Class::COUNT],
    by_address: HashMap<Block, usize>,
    by_user: HashMap<Arc<str>, usize>,
}

/// Acquired units, released on drop.
#[derive(Debug)]
pub struct Permit {
    pool: Arc<Pool>,
    holder: Holder,
    class: Class,
    /// Units of those that are reserved for the class.
    kept: usize,
    /// Units that are reserved for no class.
    common: usize,
}

impl Pool {
    pub fn new(bounds: PoolBounds) -> Arc<Self> {
        Arc::new(Self { bounds, held: Mutex::default() })
    }

    /// Acquires so many units, first of those reserved for the class. Fails with the owner of the limit that is
    /// reached.
    pub fn take(self: &Arc<Self>, holder: &Holder, class: Class, units: usize) -> Result<Permit, By> {
        let mut held = self.held();
        self.check_holder(&held, holder, units)?;
        let is_kept = self.take_of_class(&mut held, class, units)?;
        held.count(holder, units);
        drop(held);
        let (kept, common) = if is_kept { (units, 0) } else { (0, units) };
        Ok(Permit { pool: Arc::clone(self), holder: holder.clone(), class, kept, common })
    }

    /// Returns the used units of each class's reserve, and of the common rest.
    pub fn in_use(&self) -> ([usize; Class::COUNT], usize) {
        let held = self.held();
        (held.kept, held.common)
    }

    /// Returns the units that are reserved for a class.
    pub fn kept(&self, class: Class) -> usize {
        self.bounds.total.saturating_mul((self.bounds.kept_percent)(class)) / 100
    }

    fn check_holder(&self, held: &Held, holder: &Holder, units: usize) -> Result<(), By> {
        // A client without a limit of its own is refused only by the limit of all.
        let is_over = |bound: usize, count: Option<&usize>| {
            bound < self.bounds.total && count.copied().unwrap_or(0) + units > bound
        };
        if holder.block.is_some_and(|block| is_over(self.bounds.of_address, held.by_address.get(&block))) {
            return Err(By::Address);
        }
        if holder.user.as_ref().is_some_and(|user| is_over(self.bounds.of_user, held.by_user.get(user))) {
            return Err(By::User);
        }
        Ok(())
    }

    /// Takes the units from those reserved for the class, else from the common rest. Returns whether they were
    /// reserved.
    fn take_of_class(&self, held: &mut Held, class: Class, units: usize) -> Result<bool, By> {
        let is_kept = held.kept[class.number()] + units <= self.kept(class);
        if is_kept {
            held.kept[class.number()] += units;
        } else {
            self.take_common(held, units)?;
        }
        Ok(is_kept)
    }

    fn take_common(&self, held: &mut Held, units: usize) -> Result<(), By> {
        let common = self.bounds.total - Class::ALL.iter().map(|class| self.kept(*class)).sum::<usize>();
        if held.common + units > common {
            return Err(By::All);
        }
        held.common += units;
        Ok(())
    }

    /// No code panics while it has this lock.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn count(&mut self, holder: &Holder, units: usize) {
        if let Some(block) = holder.block {
            *self.by_address.entry(block).or_default() += units;
        }
        if let Some(user) = &holder.user {
            *self.by_user.entry(Arc::clone(user)).or_default() += units;
        }
    }
}

fn give_back<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K, units: usize) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(units);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Permit {
    /// Returns the class that it was acquired for.
    pub const fn class(&self) -> Class {
        self.class
    }

    /// Acquires more units.
    pub fn grow(&mut self, units: usize) -> Result<(), By> {
        let mut held = self.pool.held();
        self.pool.check_holder(&held, &self.holder, units)?;
        if self.pool.take_of_class(&mut held, self.class, units)? {
            self.kept += units;
        } else {
            self.common += units;
        }
        held.count(&self.holder, units);
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut held = self.pool.held();
        held.kept[self.class.number()] -= self.kept;
        held.common -= self.common;
        let units = self.kept + self.common;
        if let Some(block) = &self.holder.block {
            give_back(&mut held.by_address, block, units);
        }
        if let Some(user) = &self.holder.user {
            give_back(&mut held.by_user, user, units);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    fn bounds(total: usize, of_address: usize, of_user: usize) -> PoolBounds {
        let kept_percent = Class::kept_percent;
        PoolBounds { name: "requests", what: "", total, of_address, of_user, kept_percent }
    }

    fn pool(total: usize, of_address: usize, of_user: usize) -> Arc<Pool> {
        Pool::new(bounds(total, of_address, of_user))
    }

    fn pool_that_keeps_none(total: usize, share: usize) -> Arc<Pool> {
        Pool::new(PoolBounds { kept_percent: |_| 0, ..bounds(total, share, share) })
    }

    fn holder(last: u8, user: &str) -> Holder {
        let user = (!user.is_empty()).then(|| Arc::from(user));
        Holder { block: Some(Block::of(IpAddr::from([192, 0, 2, last]))), user }
    }

    #[test]
    fn reads_never_take_what_is_kept_for_payments() {
        let pool = pool(100, 1_000, 1_000);
        let mut permits = Vec::new();
        let refused = loop {
            match pool.take(&holder(1, ""), Class::PublicReads, 1) {
                Ok(permit) => permits.push(permit),
                Err(by) => break by,
            }
        };
        assert_eq!(refused, By::All);
        let paid: Vec<_> = (0..12).map(|_| pool.take(&holder(2, ""), Class::Paying, 1)).collect();
        assert!(paid.iter().all(Result::is_ok));
        assert_eq!(pool.take(&holder(2, ""), Class::Paying, 1).err(), Some(By::All));
        drop(permits);
        assert!(pool.take(&holder(2, ""), Class::Paying, 1).is_ok());
    }

    #[test]
    fn an_address_and_a_buyer_have_their_share_and_a_place_comes_back() {
        let pool = pool(1_000, 3, 2);
        let first = pool.take(&holder(1, "usr_1"), Class::OwnReads, 2).unwrap();
        assert_eq!(pool.take(&holder(2, "usr_1"), Class::OwnReads, 1).err(), Some(By::User));
        assert_eq!(pool.take(&holder(1, "usr_2"), Class::OwnReads, 2).err(), Some(By::Address));
        drop(first);
        assert!(pool.take(&holder(1, "usr_2"), Class::OwnReads, 2).is_ok());
        assert_eq!(pool.in_use(), ([0; Class::COUNT], 0));
        assert!(pool.held().by_address.is_empty() && pool.held().by_user.is_empty(), "nobody is remembered");
    }

    #[test]
    fn who_may_have_all_is_refused_by_the_bound_of_all() {
        let pool = pool_that_keeps_none(2, 2);
        let held = [1, 2].map(|_| pool.take(&holder(1, "usr_1"), Class::PublicReads, 1).unwrap());
        assert_eq!(pool.take(&holder(1, "usr_1"), Class::PublicReads, 1).err(), Some(By::All));
        drop(held);
        assert!(pool.take(&holder(1, "usr_1"), Class::PublicReads, 1).is_ok());
    }

    #[test]
    fn a_place_grows_up_to_the_bound_and_gives_all_of_it_back() {
        let pool = pool_that_keeps_none(10, 8);
        let mut permit = pool.take(&holder(1, ""), Class::Paying, 1).unwrap();
        permit.grow(7).unwrap();
        assert_eq!(permit.grow(1), Err(By::Address));
        assert_eq!(pool.in_use().1, 8);
        drop(permit);
        assert_eq!(pool.in_use().1, 0);
    }

    #[test]
    fn a_place_grows_by_what_is_kept_for_its_class_and_gives_each_part_back() {
        let pool = pool(100, 1_000, 1_000);
        let _reads = pool.take(&holder(1, ""), Class::PublicReads, 35).unwrap();
        let mut paying = pool.take(&holder(2, ""), Class::Paying, 10).unwrap();
        paying.grow(2).unwrap();
        paying.grow(3).unwrap();
        assert_eq!((pool.in_use().0[Class::Paying.number()], pool.in_use().1), (12, 38));
        assert_eq!(paying.grow(1), Err(By::All));
        drop(paying);
        assert_eq!((pool.in_use().0[Class::Paying.number()], pool.in_use().1), (0, 35));
    }
}
