//! Requests drawn by the contract: its paths, fields and types are likely, and each may be something else.

use crate::dice::Dice;
use axum::body::Body;
use http::{Method, Request, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

/// Deepest nesting that is drawn.
const DEPTH: usize = 3;
/// The gateway's own routes.
const NATIVE: [(Method, &str); 6] = [
    (Method::GET, "/"),
    (Method::POST, "/v1/auth/tokens"),
    (Method::POST, "/v1/auth/tokens:verify"),
    (Method::POST, "/v1/auth/tokens:refresh"),
    (Method::POST, "/v1/auth/tokens:revoke"),
    (Method::POST, "/v1/auth/tickets"),
];
/// Pieces that are put into bodies.
const PIECES: [&[u8]; 10] =
    [b"{", b"}", b"[", b"\"", b",", b"null", b"\xff", b"\\u0000", b"\"request_id\":1,", b"[[[[[[[[[[[[[[[["];

/// A route, and the message that its requests are.
pub struct Route {
    method: Method,
    template: String,
    /// None for the gateway's own.
    input: Option<MessageDescriptor>,
}

/// A request that was drawn.
#[derive(Debug)]
pub struct Drawn {
    pub method: Method,
    uri: String,
    token: String,
    body: Vec<u8>,
}

/// Returns every route of the contract, and the gateway's own.
pub fn routes() -> Vec<Route> {
    let pool = DescriptorPool::decode(stampede_proto::DESCRIPTOR_SET).unwrap();
    let http = pool.get_extension_by_name("google.api.http").unwrap();
    let own = NATIVE.map(|(method, path)| Route { method, template: path.to_owned(), input: None });
    let mut routes: Vec<Route> = own.into();
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let options = method.options();
        if options.has_extension(&http) {
            let rule = options.get_extension(&http);
            let (verb, template) = pattern(rule.as_message().unwrap());
            routes.push(Route { method: verb, template, input: Some(method.input()) });
        }
    }
    routes
}

fn pattern(rule: &DynamicMessage) -> (Method, String) {
    let text = |field: &str| rule.get_field_by_name(field).unwrap().as_str().unwrap().to_owned();
    let get = text("get");
    if get.is_empty() { (Method::POST, text("post")) } else { (Method::GET, get) }
}

impl Route {
    /// Draws a request of this route, or one that is near it.
    pub fn draw(&self, dice: &mut Dice, tokens: &[String]) -> Drawn {
        let other = [Method::GET, Method::POST, Method::HEAD, Method::PUT, Method::OPTIONS];
        let method = if dice.one_in(15) { dice.pick(&other).clone() } else { self.method.clone() };
        let token = if dice.one_in(15) { dice.text() } else { dice.pick(tokens).clone() };
        let uri = format!("{}{}", self.path(dice), self.query(dice));
        Drawn { method, uri, token, body: self.body(dice) }
    }

    fn path(&self, dice: &mut Dice) -> String {
        let mut path = self.template.clone();
        if let (Some(from), Some(to)) = (path.find('{'), path.find('}')) {
            path.replace_range(from..=to, &encoded(dice));
        }
        match dice.below(30) {
            0 => path.push(':'),
            1 => path.push('/'),
            2 => path.push_str(&encoded(dice)),
            _ => {}
        }
        path
    }

    fn query(&self, dice: &mut Dice) -> String {
        let of_get = self.method == Method::GET;
        if !of_get && !dice.one_in(10) || of_get && dice.one_in(4) {
            return String::new();
        }
        let pairs: Vec<String> = (0..dice.below(4)).map(|_| self.pair(dice)).collect();
        format!("?{}", pairs.join("&"))
    }

    fn pair(&self, dice: &mut Dice) -> String {
        let fields: Vec<FieldDescriptor> = self.input.iter().flat_map(|message| message.fields()).collect();
        let name = if fields.is_empty() || dice.one_in(6) { encoded(dice) } else { name_of(dice.pick(&fields), dice) };
        let inner = if dice.one_in(10) { ".currency" } else { "" };
        format!("{name}{inner}={}", encoded(dice))
    }

    fn body(&self, dice: &mut Dice) -> Vec<u8> {
        if self.method == Method::GET && !dice.one_in(10) {
            return Vec::new();
        }
        let json = match &self.input {
            Some(message) if !dice.one_in(10) => object(message, dice, DEPTH),
            Some(_) => dice.json(DEPTH),
            None => {
                let names = ["access_token", "refresh_token", "path"];
                Value::Object(Map::from_iter([((*dice.pick(&names)).to_owned(), dice.json(1))]))
            }
        };
        let mut body = json.to_string().into_bytes();
        if dice.one_in(3) {
            dice.damage(&mut body, &PIECES);
        }
        body
    }
}

impl Drawn {
    /// Returns the request; `None` if it cannot be sent, by the rules of URIs and headers.
    pub fn request(&self) -> Option<Request<Body>> {
        let mut request = Request::builder().method(self.method.clone()).uri(&self.uri);
        if !self.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if !self.token.is_empty() {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        }
        request.body(Body::from(self.body.clone())).ok()
    }
}

/// Returns a text as it may stand in a URI, rarely one that may not.
fn encoded(dice: &mut Dice) -> String {
    let text = dice.text();
    if dice.one_in(10) { text } else { utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string() }
}

fn name_of(field: &FieldDescriptor, dice: &mut Dice) -> String {
    if dice.one_in(3) { field.json_name().to_owned() } else { field.name().to_owned() }
}

fn object(message: &MessageDescriptor, dice: &mut Dice, depth: usize) -> Value {
    let mut object = Map::new();
    for field in message.fields() {
        if !dice.one_in(5) {
            object.insert(name_of(&field, dice), value(&field, dice, depth));
        }
    }
    if dice.one_in(12) {
        object.insert(dice.text(), dice.json(1));
    }
    Value::Object(object)
}

fn value(field: &FieldDescriptor, dice: &mut Dice, depth: usize) -> Value {
    if dice.one_in(10) {
        return dice.json(1);
    }
    if field.is_list() {
        return (0..dice.below(4)).map(|_| single(field, dice, depth)).collect();
    }
    single(field, dice, depth)
}

fn single(field: &FieldDescriptor, dice: &mut Dice, depth: usize) -> Value {
    match field.kind() {
        Kind::Bool => Value::Bool(dice.one_in(2)),
        Kind::Message(inner) if inner.full_name().starts_with("google.protobuf.") => Value::String(dice.text()),
        Kind::Message(inner) if depth > 0 => object(&inner, dice, depth - 1),
        Kind::Enum(values) => {
            let names: Vec<String> = values.values().map(|value| value.name().to_owned()).collect();
            Value::String(dice.pick(&names).clone())
        }
        Kind::String | Kind::Bytes => Value::String(dice.text()),
        _ if dice.one_in(2) => dice.number(),
        _ => Value::String(dice.number().to_string()),
    }
}
