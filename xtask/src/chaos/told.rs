//! What all crowds of a run were told, so that a later fault cannot lose it unseen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// What `stampede simulate --acknowledged` writes and `stampede audit --acknowledged` reads.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Told {
    orders: BTreeSet<String>,
    coupons: BTreeSet<String>,
    states: BTreeMap<String, serde_json::Value>,
}

impl Told {
    /// Reads what one crowd was told.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is not what simulate writes", file.display()))
    }

    /// Adds what another crowd was told, of a sale of its own.
    pub fn add(&mut self, other: Self) {
        self.orders.extend(other.orders);
        self.coupons.extend(other.coupons);
        self.states.extend(other.states);
    }

    /// Writes all of it.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        let text = serde_json::to_string(self).context("ids and states have a JSON form")?;
        fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn what_two_crowds_were_told_is_kept() {
        let scratch = Scratch::new("told");
        let (one, all) = (scratch.path().join("one.json"), scratch.path().join("all.json"));
        let mut told = Told::default();
        for id in ["ord_1", "ord_2"] {
            let state = format!(r#"{{"{id}": {{"state": "PAID", "version": 3}}}}"#);
            fs::write(&one, format!(r#"{{"orders": ["{id}"], "coupons": [], "states": {state}}}"#)).expect("writable");
            told.add(Told::read(&one).expect("readable"));
        }
        told.write(&all).expect("writable");
        let read = Told::read(&all).expect("readable");
        assert_eq!((read.orders.len(), read.coupons.len(), read.states.len()), (2, 0, 2));
        assert_eq!(read.states["ord_2"]["version"], 3);
    }
}
