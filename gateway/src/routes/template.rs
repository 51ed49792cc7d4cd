//! Path templates of `google.api.http`, such as `/v1/orders/{order_id}:pay`.
//!
//! The grammar is the one of `google/api/http.proto`: literals, `*` for one segment, `**` for the rest, variables that
//! stand for either, and a verb behind the last segment.

/// One segment of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Exactly this text.
    Literal(String),
    /// Any one segment that is not empty.
    One,
    /// All segments that follow, at least one.
    Rest,
}

/// A variable and the segments that it covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// Path of the request field, such as `order_id` or `order.name`.
    pub field: String,
    /// First segment, from 0.
    pub first: usize,
    /// How many segments; `None` for all that follow.
    pub count: Option<usize>,
}

/// A parsed template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The segments in order.
    pub segments: Vec<Segment>,
    /// What follows the last colon; empty for none.
    pub verb: String,
    /// The variables in order.
    pub variables: Vec<Variable>,
}

/// A template that cannot be read, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("path template \"{template}\": {problem}")]
pub struct TemplateError {
    template: String,
    problem: &'static str,
}

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        parse(text).map_err(|problem| TemplateError { template: text.to_owned(), problem })
    }
}

/// Splits `orders/42:pay` into the path and the verb. A colon before the last slash is none of a verb's.
pub fn split_verb(path: &str) -> (&str, &str) {
    match path.rsplit_once(':') {
        Some((before, verb)) if !verb.contains(['/', '}']) => (before, verb),
        _ => (path, ""),
    }
}

fn parse(text: &str) -> Result<Template, &'static str> {
    let text = text.strip_prefix('/').ok_or("must start with a slash")?;
    let (path, verb) = split_verb(text);
    let mut template = Template { segments: Vec::new(), verb: verb.to_owned(), variables: Vec::new() };
    let mut rest = Some(path);
    while let Some(path) = rest {
        rest = match path.strip_prefix('{') {
            Some(inner) => template.take_variable(inner)?,
            None => {
                let (segment, rest) = next_segment(path);
                template.push(segment)?;
                rest
            }
        };
    }
    Ok(template)
}

fn next_segment(path: &str) -> (&str, Option<&str>) {
    match path.split_once('/') {
        Some((segment, rest)) => (segment, Some(rest)),
        None => (path, None),
    }
}

impl Template {
    /// Reads `order_id}` or `name=shelves/*}` and what follows it.
    fn take_variable<'t>(&mut self, inner: &'t str) -> Result<Option<&'t str>, &'static str> {
        let (variable, rest) = inner.split_once('}').ok_or("a brace is not closed")?;
        let rest = match rest.strip_prefix('/') {
            Some(rest) => Some(rest),
            None if rest.is_empty() => None,
            None => return Err("a variable must fill its segments"),
        };
        let (field, pattern) = variable.split_once('=').unwrap_or((variable, "*"));
        if field.is_empty() {
            return Err("a variable has no name");
        }
        let first = self.segments.len();
        for segment in pattern.split('/') {
            self.push(segment)?;
        }
        let open = self.segments.last() == Some(&Segment::Rest);
        let count = (!open).then(|| self.segments.len() - first);
        self.variables.push(Variable { field: field.to_owned(), first, count });
        Ok(rest)
    }

    fn push(&mut self, segment: &str) -> Result<(), &'static str> {
        if self.segments.last() == Some(&Segment::Rest) {
            return Err("nothing can follow **");
        }
        self.segments.push(match segment {
            "" => return Err("a segment is empty"),
            "*" => Segment::One,
            "**" => Segment::Rest,
            literal if literal.contains(['{', '}', '*', ':']) => {
                return Err("a literal has a character of the grammar");
            }
            literal => Segment::Literal(literal.to_owned()),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(text: &str) -> Segment {
        Segment::Literal(text.to_owned())
    }

    fn variable(field: &str, first: usize, count: Option<usize>) -> Variable {
        Variable { field: field.to_owned(), first, count }
    }

    #[test]
    fn a_verb_and_a_variable_are_told_apart() {
        let template = Template::parse("/v1/orders/{order_id}:pay").unwrap();
        assert_eq!(template.segments, [literal("v1"), literal("orders"), Segment::One]);
        assert_eq!(template.verb, "pay");
        assert_eq!(template.variables, [variable("order_id", 2, Some(1))]);
    }

    #[test]
    fn a_verb_may_follow_a_literal() {
        let template = Template::parse("/v1/events/{event_id}/stock:watch").unwrap();
        assert_eq!(template.segments.last(), Some(&literal("stock")));
        assert_eq!(template.verb, "watch");
    }

    #[test]
    fn a_variable_may_cover_several_segments() {
        let template = Template::parse("/v1/{name=shelves/*/books/*}/pages").unwrap();
        assert_eq!(template.segments.len(), 6);
        assert_eq!(template.variables, [variable("name", 1, Some(4))]);
        let template = Template::parse("/v1/{path=files/**}:read").unwrap();
        assert_eq!(template.segments, [literal("v1"), literal("files"), Segment::Rest]);
        assert_eq!((template.verb.as_str(), &template.variables), ("read", &vec![variable("path", 1, None)]));
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for (text, problem) in [
            ("v1/orders", "slash"),
            ("/v1//orders", "empty"),
            ("/v1/orders/", "empty"),
            ("/v1/{order_id", "not closed"),
            ("/v1/{}", "no name"),
            ("/v1/{a}b", "fill"),
            ("/v1/**/b", "follow"),
            ("/v1/a*b", "grammar"),
        ] {
            let error = Template::parse(text).unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains(text), "{text}: {error}");
        }
    }

    #[test]
    fn a_colon_in_an_earlier_segment_is_no_verb() {
        assert_eq!(split_verb("a:b/c"), ("a:b/c", ""));
        assert_eq!(split_verb("a/b:c"), ("a/b", "c"));
    }
}
