//! An example of each request, by the id of its operation, as `examples.json` has them.

use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

const EXAMPLES: &str = include_str!("examples.json");

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Example {
    #[serde(default)]
    pub path: Map<String, Value>,
    #[serde(default)]
    pub query: Map<String, Value>,
    pub body: Option<Value>,
}

impl Example {
    /// Puts the value of a parameter into its description.
    pub fn put_in(&self, parameter: &mut Value) {
        let values = if parameter["in"] == "path" { &self.path } else { &self.query };
        let value = parameter["name"].as_str().and_then(|name| values.get(name)).cloned();
        if let Some(value) = value {
            parameter["example"] = value;
        }
    }
}

/// Reads all of them; none if the file is malformed, which a test rules out.
pub fn all() -> BTreeMap<String, Example> {
    serde_json::from_str(EXAMPLES).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_can_be_read() {
        let read: Result<BTreeMap<String, Example>, _> = serde_json::from_str(EXAMPLES);
        assert!(!read.unwrap().is_empty());
    }
}
