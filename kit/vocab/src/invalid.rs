//! The error of one field of a request.

/// A field with a value that is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct InvalidField {
    /// Path of the field as the caller wrote it, such as `lines[1].units`.
    pub field: String,
    /// The fault and the allowed values, such as "must be 1 to 100".
    pub problem: String,
}

impl InvalidField {
    /// Makes the error of `field`.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    /// Prefixes the field with the path of its message: `units` within `lines[1]` is `lines[1].units`.
    pub fn within(self, outer: &str) -> Self {
        Self { field: format!("{outer}.{}", self.field), ..self }
    }
}
