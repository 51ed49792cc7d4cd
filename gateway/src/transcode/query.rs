//! Query parameters: those fields of a request that are neither in its path nor in its body.

use super::{json::unknown_field, text};
use crate::routes::{FieldPath, Rpc, TICKET};
use prost_reflect::DynamicMessage;
use stampede_status::Problem;
use std::borrow::Cow;

/// Sets the fields that the query names. A repeated field may be named many times.
pub fn apply(rpc: &Rpc, query: &str, message: &mut DynamicMessage) -> Result<(), Problem> {
    let mut seen: Vec<FieldPath> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // Names the caller, who was authenticated before.
        if rpc.streaming && name == TICKET {
            continue;
        }
        let path = accepted(rpc, &decode(&"query", name)?)?;
        if !path.last().is_list() && seen.contains(&path) {
            return Err(Problem::invalid_field(path.to_string(), "is given twice"));
        }
        text::set(message, &path, &decode(&path, value)?)?;
        seen.push(path);
    }
    Ok(())
}

/// Refuses all parameters.
pub fn refuse(query: &str) -> Result<(), Problem> {
    let Some(first) = query.split('&').find(|pair| !pair.is_empty()) else { return Ok(()) };
    let name = first.split_once('=').map_or(first, |(name, _)| name);
    Err(unknown_field(&decode(&"query", name)?))
}

fn accepted(rpc: &Rpc, name: &str) -> Result<FieldPath, Problem> {
    let path = FieldPath::resolve(&rpc.input, name).ok_or_else(|| unknown_field(name))?;
    if rpc.has_body {
        return Err(Problem::invalid_field(path.to_string(), "belongs in the body, not in the query"));
    }
    if rpc.variable.as_ref().is_some_and(|variable| variable.field == path) {
        return Err(Problem::invalid_field(path.to_string(), "is given by the path"));
    }
    Ok(path)
}

/// Decodes the encoding of forms, where a plus is a space.
fn decode(field: &dyn std::fmt::Display, text: &str) -> Result<String, Problem> {
    let spaced = if text.contains('+') { Cow::Owned(text.replace('+', " ")) } else { Cow::Borrowed(text) };
    text::decode(field, &spaced).map(Cow::into_owned)
}
