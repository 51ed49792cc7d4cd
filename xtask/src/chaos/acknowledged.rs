//! Everything acknowledged to the crowds of a run, so that the audit notices if a later fault loses any of it.

use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// The file that `stampede simulate --acknowledged` writes and `stampede audit --acknowledged` reads.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acknowledged {
    orders: BTreeSet<String>,
    coupons: BTreeSet<String>,
    states: BTreeMap<String, serde_json::Value>,
}

impl Acknowledged {
    /// Reads the acknowledgements of one crowd.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no file of acknowledgements", file.display()))
    }

    /// Adds those of another crowd, of a sale of its own.
    pub fn add(&mut self, other: Self) {
        self.orders.extend(other.orders);
        self.coupons.extend(other.coupons);
        self.states.extend(other.states);
    }

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
    fn acknowledgements_of_two_crowds_are_merged() {
        let scratch = Scratch::new("acknowledged");
        let (one, all) = (scratch.path().join("one.json"), scratch.path().join("all.json"));
        let mut acknowledged = Acknowledged::default();
        for id in ["ord_1", "ord_2"] {
            let state = format!(r#"{{"{id}": {{"state": "PAID", "version": 3}}}}"#);
            fs::write(&one, format!(r#"{{"orders": ["{id}"], "coupons": [], "states": {state}}}"#)).expect("writable");
            acknowledged.add(Acknowledged::read(&one).expect("readable"));
        }
        acknowledged.write(&all).expect("writable");
        let read = Acknowledged::read(&all).expect("readable");
        assert_eq!((read.orders.len(), read.coupons.len(), read.states.len()), (2, 0, 2));
        assert_eq!(read.states["ord_2"]["version"], 3);
    }
}
