//! What is wrong with one field of what came in.

/// A field that cannot be taken, and how it should look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidField {
    /// Path of the field as the caller wrote it, such as `lines[1].units`.
    pub field: String,
    /// What is wrong and what would be right, such as "must be 1 to 100".
    pub problem: String,
}

impl InvalidField {
    /// `field` is wrong in this way.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    /// The same, seen from the message that holds the field: `units` within `lines[1]` is `lines[1].units`.
    pub fn within(self, outer: &str) -> Self {
        Self { field: format!("{outer}.{}", self.field), ..self }
    }
}
