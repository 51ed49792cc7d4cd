//! Path templates of `google.api.http`, such as `/v1/orders/{order_id}:pay`, as far as the contract uses them:
//! literals, one variable that fills a segment, and a verb behind the last segment.

/// A template that is not of the grammar above.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("path template \"{template}\": {problem}")]
pub struct TemplateError {
    template: String,
    problem: &'static str,
}

/// The variable of a template, and the segment that it fills, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable<'t> {
    /// Name of the request field.
    pub field: &'t str,
    /// The segment that it fills.
    pub segment: usize,
}

/// Returns the variable of a template, if it has one. Fails if it has two, or a part that is not of the grammar above.
pub fn variable(template: &str) -> Result<Option<Variable<'_>>, TemplateError> {
    read(template).map_err(|problem| TemplateError { template: template.to_owned(), problem })
}

fn read(template: &str) -> Result<Option<Variable<'_>>, &'static str> {
    let path = template.strip_prefix('/').ok_or("must start with a slash")?;
    let mut found = None;
    for (number, text) in path.split('/').enumerate() {
        let is_last = number == path.matches('/').count();
        let text = match text.rsplit_once(':') {
            Some((text, verb)) if is_last && is_name(verb) => text,
            Some(_) => return Err("a verb is a name behind the last segment"),
            None => text,
        };
        match text.strip_prefix('{').map(|inner| inner.strip_suffix('}')) {
            Some(Some(_)) if found.is_some() => return Err("has more than one variable"),
            Some(Some(field)) if is_name(field) => found = Some(Variable { field, segment: number }),
            Some(_) => return Err("a variable is one field that fills its segment"),
            None if text.is_empty() && !path.is_empty() => return Err("a segment is empty"),
            None if text.contains(['{', '}', '*']) => return Err("a literal has a character of the grammar"),
            None => {}
        }
    }
    Ok(found)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{
        collection::vec,
        prelude::{Strategy, prop_assert, prop_oneof, proptest},
    };

    #[test]
    fn a_verb_and_a_variable_are_distinguished() {
        for (template, expected) in [
            ("/", None),
            ("/v1/orders", None),
            ("/v1/events:watch", None),
            ("/v1/orders/{order_id}", Some(("order_id", 2))),
            ("/v1/orders/{order_id}:pay", Some(("order_id", 2))),
            ("/v1/events/{event_id}/stock:watch", Some(("event_id", 2))),
        ] {
            let found = variable(template).unwrap();
            assert_eq!(found.map(|variable| (variable.field, variable.segment)), expected, "{template}");
        }
    }

    #[test]
    fn what_the_contract_does_not_use_is_refused() {
        for (template, problem) in [
            ("v1/orders", "slash"),
            ("/v1//orders", "empty"),
            ("/v1/orders/", "empty"),
            ("/v1/{order_id", "fills"),
            ("/v1/{}", "fills"),
            ("/v1/{a}b", "fills"),
            ("/v1/{order.id}", "fills"),
            ("/v1/{name=orders/*}", "fills"),
            ("/v1/{a}/{b}", "more than one"),
            ("/v1/**", "grammar"),
            ("/v1/a*b", "grammar"),
            ("/v1:b/c", "verb"),
            ("/v1/{a}:", "verb"),
        ] {
            let error = variable(template).unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains(template), "{template}: {error}");
        }
    }

    fn segment() -> impl Strategy<Value = String> {
        prop_oneof!["[a-z0-9]{1,5}", r"\{[a-z_]{1,5}\}", r"[a-z_{}:*]{0,6}"]
    }

    proptest! {
        #[test]
        fn a_variable_stands_in_the_segment_that_it_is_found_in(
            segments in vec(segment(), 1..5),
            verb in "(:[a-z]{1,5})?",
        ) {
            let template = format!("/{}{verb}", segments.join("/"));
            match variable(&template) {
                Ok(Some(found)) => {
                    let name = format!("{{{}}}", found.field);
                    prop_assert!(segments[found.segment].starts_with(&name), "{}", template);
                }
                Ok(None) => prop_assert!(!template.contains(['{', '}', '*']), "{}", template),
                Err(error) => prop_assert!(error.to_string().contains(&template), "{}", error),
            }
        }
    }
}
