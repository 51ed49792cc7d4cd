//! The breaches of a rule: all counted, and named up to a bound, so that an audit that finds millions of breaches needs
//! no more memory than one that finds a few.

use serde::Serialize;

/// Most breaches of one rule that are named.
pub const MOST_NAMED: usize = 1_000;

/// Breaches: their number, and the first of them by name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Named {
    /// Number of breaches.
    count: usize,
    /// The ids of the first, with details.
    named: Vec<String>,
}

impl Named {
    /// Counts one, and names it if there is room.
    pub fn push(&mut self, name: String) {
        self.count += 1;
        if self.named.len() < MOST_NAMED {
            self.named.push(name);
        }
    }

    pub fn merge(&mut self, other: Self) {
        let unnamed = other.count - other.named.len();
        self.extend(other.named);
        self.count += unnamed;
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the names of the first.
    pub fn names(&self) -> &[String] {
        &self.named
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl Extend<String> for Named {
    fn extend<I: IntoIterator<Item = String>>(&mut self, names: I) {
        for name in names {
            self.push(name);
        }
    }
}

impl FromIterator<String> for Named {
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        let mut named = Self::default();
        named.extend(names);
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(count: usize) -> Named {
        (0..count).map(|n| format!("pay_{n}")).collect()
    }

    #[test]
    fn all_are_counted_and_the_first_are_named() {
        let mut named = found(MOST_NAMED + 5);
        assert_eq!((named.count(), named.names().len()), (MOST_NAMED + 5, MOST_NAMED));
        assert_eq!(named.names()[MOST_NAMED - 1], format!("pay_{}", MOST_NAMED - 1));
        named.merge(found(MOST_NAMED + 7));
        assert_eq!((named.count(), named.names().len()), (2 * MOST_NAMED + 12, MOST_NAMED));
    }

    #[test]
    fn what_was_found_elsewhere_is_named_where_there_is_room() {
        let mut named = found(2);
        named.merge(found(MOST_NAMED + 1));
        assert_eq!((named.count(), named.names().len()), (MOST_NAMED + 3, MOST_NAMED));
        assert_eq!(named.names()[2], "pay_0");
        assert!(!named.is_empty() && Named::default().is_empty());
    }
}
