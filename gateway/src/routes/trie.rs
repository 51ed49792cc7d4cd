//! A tree over path segments, so that finding a route costs one hash look-up a segment, however many routes there are.

use super::template::{Segment, Template, split_verb};
use std::collections::HashMap;

/// Maps paths to values of `T`. Where several templates fit, a literal goes before `*`, and `*` before `**`.
#[derive(Debug)]
pub struct Trie<T> {
    root: Node<T>,
}

#[derive(Debug)]
struct Node<T> {
    literals: HashMap<String, Node<T>>,
    one: Option<Box<Node<T>>>,
    /// What ends here, by verb; the empty verb is none.
    ends: Ends<T>,
    /// What takes everything below here, by verb.
    rest: Ends<T>,
}

type Ends<T> = HashMap<String, T>;

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { root: Node::default() }
    }
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { literals: HashMap::new(), one: None, ends: HashMap::new(), rest: HashMap::new() }
    }
}

impl<T: Default> Trie<T> {
    /// The value at this template, made if there was none.
    pub fn entry(&mut self, template: &Template) -> &mut T {
        let mut node = &mut self.root;
        for segment in &template.segments {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
                Segment::One => node.one.get_or_insert_default(),
                Segment::Rest => return node.rest.entry(template.verb.clone()).or_default(),
            };
        }
        node.ends.entry(template.verb.clone()).or_default()
    }
}

impl<T> Trie<T> {
    /// The value whose template fits the path of a request.
    pub fn find(&self, path: &str) -> Option<&T> {
        let (path, verb) = split_verb(path.strip_prefix('/')?);
        self.root.find(Some(path), verb)
    }
}

impl<T> Node<T> {
    fn find(&self, path: Option<&str>, verb: &str) -> Option<&T> {
        let Some(path) = path else { return self.ends.get(verb) };
        let (segment, below) = match path.split_once('/') {
            Some((segment, below)) => (segment, Some(below)),
            None => (path, None),
        };
        if segment.is_empty() {
            return None;
        }
        let literal = || self.literals.get(segment).and_then(|node| node.find(below, verb));
        let one = || self.one.as_ref().and_then(|node| node.find(below, verb));
        literal().or_else(one).or_else(|| self.rest.get(verb))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trie(templates: &[&'static str]) -> Trie<&'static str> {
        let mut trie = Trie::default();
        for text in templates.iter().copied() {
            *trie.entry(&Template::parse(text).unwrap()) = text;
        }
        trie
    }

    #[test]
    fn paths_find_their_templates() {
        let trie = trie(&[
            "/v1/events",
            "/v1/events:watch",
            "/v1/events/{event_id}",
            "/v1/events/{event_id}:cancel",
            "/v1/events/{event_id}/stock",
            "/v1/events/{event_id}/stock:watch",
            "/v1/events/special",
            "/v1/files/{path=**}",
        ]);
        for (path, expected) in [
            ("/v1/events", Some("/v1/events")),
            ("/v1/events:watch", Some("/v1/events:watch")),
            ("/v1/events/evt_1", Some("/v1/events/{event_id}")),
            ("/v1/events/special", Some("/v1/events/special")),
            ("/v1/events/special:cancel", Some("/v1/events/{event_id}:cancel")),
            ("/v1/events/special/stock", Some("/v1/events/{event_id}/stock")),
            ("/v1/events/evt_1:cancel", Some("/v1/events/{event_id}:cancel")),
            ("/v1/events/evt_1/stock:watch", Some("/v1/events/{event_id}/stock:watch")),
            ("/v1/files/a/b/c", Some("/v1/files/{path=**}")),
            ("/v1/files", None),
            ("/v1/files/", None),
            ("/v1/events/", None),
            ("/v1/events//stock", None),
            ("/v1/events/evt_1:nothing", None),
            ("/v1/events/evt_1/stock/more", None),
            ("/v2/events", None),
            ("", None),
            ("*", None),
        ] {
            assert_eq!(trie.find(path).copied(), expected, "{path}");
        }
    }
}
