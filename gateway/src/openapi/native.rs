//! The operations of the gateway itself, which no descriptor has: described by hand.

use super::{
    examples::Example,
    operations::security,
    parameters, reasons, responses,
    schemas::{Schemas, reference},
};
use crate::routes::{Access, Native, Page, Route};
use http::Method;
use serde_json::{Value, json};
use stampede_status::Reason;

/// The description of one endpoint.
struct Own {
    tag: &'static str,
    /// Name of the operation.
    name: &'static str,
    summary: &'static str,
    description: &'static str,
    /// The media type and the schema of its answer.
    answer: (&'static str, Value),
    /// The schema of its body.
    body: Option<Value>,
    /// Reasons for which it can fail, beside those of all requests.
    reasons: &'static [Reason],
}

impl Own {
    fn new(
        (tag, name): (&'static str, &'static str),
        (summary, description): (&'static str, &'static str),
        answer: (&'static str, Value),
    ) -> Self {
        Self { tag, name, summary, description, answer, body: None, reasons: &[] }
    }

    fn taking(self, schema: Value) -> Self {
        Self { body: Some(schema), ..self }
    }
}

const JSON: &str = "application/json";

/// The tags of these operations, with their descriptions.
pub const TAGS: [(&str, &str); 2] = [("auth", "Tokens: every login begins here."), ("gateway", "The gateway itself.")];

/// Describes an endpoint at its route.
pub fn of(route: &Route, native: Native, example: impl FnOnce(&str) -> Example) -> Value {
    let own = own(native);
    let id = format!("Gateway_{}", own.name);
    let mut operation = json!({
        "operationId": id,
        "tags": [own.tag],
        "summary": own.summary,
        "description": format!("{}. {}", own.summary, own.description),
        "security": security(route),
    });
    if let Some(schema) = own.body {
        let is_needed = ["required", "oneOf"].iter().any(|keyword| schema.get(keyword).is_some());
        let mut content = json!({"schema": schema});
        if let Some(body) = example(&id).body {
            content["example"] = body;
        }
        operation["requestBody"] = json!({"required": is_needed, "content": {JSON: content}});
    }
    let mut reasons = reasons::of_route(route);
    reasons.extend(own.reasons);
    let mut all = responses::failures(&reasons);
    let is_page = matches!(native, Native::Page(_));
    if is_page {
        operation["parameters"] = json!([parameters::refer("IfNoneMatch")]);
        all.insert("304".to_owned(), responses::success("The answer that is known still holds.", None, true));
    }
    let (media_type, schema) = own.answer;
    let content = Some((media_type, json!({"schema": schema})));
    all.insert(status(route, native).to_owned(), responses::success("Done.", content, is_page));
    operation["responses"] = Value::Object(all);
    operation
}

/// Returns the status of success.
fn status(route: &Route, native: Native) -> &'static str {
    let creates = matches!(native, Native::IssueToken | Native::IssueTicket);
    if route.method == Method::POST && creates { "201" } else { "200" }
}

/// Writes the schemas that these operations refer to.
pub fn add_schemas(schemas: &mut Schemas) {
    let text = |description: &str| json!({"type": "string", "description": description});
    let time = |description: &str| json!({"type": "string", "format": "date-time", "description": description});
    schemas.add("Problem", responses::problem());
    schemas.add(
        "ServerTime",
        json!({
            "type": "object",
            "description": "The time of the gateway.",
            "required": ["server_time"],
            "properties": {"server_time": time("To the millisecond.")},
        }),
    );
    let pair = json!({
        "user_id": text("The buyer, such as \"usr_01j9...\"."),
        "access_token": text("Send it as `Authorization: Bearer ...`."),
        "access_expires_at": time("End of the access token."),
        "refresh_token": text("Good for the next pair, once."),
        "refresh_expires_at": time("End of the refresh token."),
    });
    schemas.add("TokenPair", object("A pair of tokens.", pair, true));
    let verification = json!({
        "active": {"type": "boolean", "description": "Whether the token is taken now."},
        "user_id": text("Whom it names, if it is."),
        "role": text("`buyer` or `operator`, if it is."),
        "expires_at": time("Its end, if it is."),
    });
    let mut verification = object("Whether a token is taken.", verification, false);
    verification["required"] = json!(["active"]);
    schemas.add("Verification", verification);
    let ticket = json!({
        "ticket": text("Send it as the query parameter `ticket`."),
        "path": text("The only stream that it opens."),
        "expires_at": time("End of the time in which it opens it."),
    });
    schemas.add("Ticket", object("A ticket for one stream.", ticket, true));
}

fn object(description: &str, properties: Value, all_required: bool) -> Value {
    let names: Vec<_> = properties.as_object().into_iter().flat_map(|all| all.keys().cloned()).collect();
    let mut schema = json!({"type": "object", "description": description, "properties": properties});
    if all_required {
        schema["required"] = json!(names);
    }
    schema
}

/// Returns the schema of a body that must have one text of this name.
fn body_of(name: &str, description: &str) -> Value {
    let properties = json!({name: {"type": "string", "description": description}});
    closed(object("Request.", properties, true))
}

fn closed(mut schema: Value) -> Value {
    schema["additionalProperties"] = json!(false);
    schema
}

/// Returns the schema of a body that may have a token of either kind, and not both.
fn one_token() -> Value {
    let properties = json!({
        "access_token": {"type": "string", "description": "An access token of the login."},
        "refresh_token": {"type": "string", "description": "A refresh token of the login."},
    });
    let mut schema = closed(object("One of the two.", properties, false));
    schema["oneOf"] = json!([{"required": ["access_token"]}, {"required": ["refresh_token"]}]);
    schema
}

fn own(native: Native) -> Own {
    match native {
        Native::Index => Own::new(
            ("gateway", "Index"),
            ("Returns the entry points of the API", "Name, version, and the path of each list."),
            (JSON, json!({"type": "object"})),
        ),
        Native::Page(Page::OpenApi) => Own::new(
            ("gateway", "OpenApi"),
            ("Returns this description", "It is made of the contract that the gateway serves."),
            (JSON, json!({"type": "object"})),
        ),
        Native::Page(Page::Docs) => Own::new(
            ("gateway", "Docs"),
            ("Returns a page that shows this description", "It needs nothing but this gateway."),
            ("text/html", json!({"type": "string"})),
        ),
        Native::IssueToken => Own::new(("auth", "IssueToken"), ISSUE, (JSON, reference("TokenPair")))
            .taking(closed(object("Nothing is asked for.", json!({}), false))),
        Native::VerifyToken => Own::new(("auth", "VerifyToken"), VERIFY, (JSON, reference("Verification")))
            .taking(body_of("access_token", "The token.")),
        Native::RefreshToken => Own {
            reasons: &[Reason::Unauthenticated, Reason::TokenExpired, Reason::TokenReused, Reason::TokenRevoked],
            ..Own::new(("auth", "RefreshToken"), REFRESH, (JSON, reference("TokenPair")))
                .taking(body_of("refresh_token", "The newest of the login."))
        },
        Native::RevokeToken => {
            Own::new(("auth", "RevokeToken"), REVOKE, (JSON, json!({"type": "object"}))).taking(one_token())
        }
        Native::IssueTicket => Own::new(("auth", "IssueTicket"), TICKET, (JSON, reference("Ticket")))
            .taking(body_of("path", "Path of the stream, such as /v1/orders/{order_id}:watch.")),
    }
}

/// Summary and description of each endpoint of tokens.
const ISSUE: (&str, &str) = (
    "Creates an anonymous buyer with a pair of tokens",
    "Each call is another buyer. Tokens of operators are made by `stampede token`.",
);
const VERIFY: (&str, &str) =
    ("Returns whether an access token is taken now", "One that is not taken is an answer, not an error.");
const REFRESH: (&str, &str) = (
    "Returns the next pair of tokens for a refresh token",
    "For a while, a minute by default, the same refresh token gets the same pair, as its answer may have been lost. \
     After that its use ends the login.",
);
const REVOKE: (&str, &str) = (
    "Ends the login that a token is of",
    "None of its tokens is taken from then on. Nothing is done for a token that is not taken (RFC 7009).",
);
const TICKET: (&str, &str) = (
    "Creates a ticket for one stream",
    "It stands for the caller for 30 seconds and at that path alone, where no header can be sent, as `EventSource` of \
     browsers cannot.",
);

pub fn security_schemes() -> Value {
    json!({
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "An access token: of a buyer by `POST /v1/auth/tokens`, of an operator by `stampede token`.",
        },
        "ticket": {
            "type": "apiKey",
            "in": "query",
            "name": crate::routes::TICKET,
            "description": "A ticket of `POST /v1/auth/tickets`, for streams alone.",
        },
    })
}

/// Returns the sentence on whether a route needs a caller.
pub fn caller(access: Access) -> &'static str {
    match access {
        Access::Public => "anybody",
        Access::Operator => "operator",
        Access::Authenticated => "any token",
    }
}
