//! The route table: every path that is answered, from the contract and from the gateway itself.

use super::{Access, RouteError, annotation, rpc::Rpc};
use http::{HeaderValue, Method};
use matchit::Router;
use prost_reflect::DescriptorPool;
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// The endpoints of the gateway itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Native {
    /// The entry points of the API.
    Index,
    /// A new anonymous buyer.
    IssueToken,
    /// The validity of an access token.
    VerifyToken,
    /// The next pair of tokens.
    RefreshToken,
    /// The end of a login.
    RevokeToken,
    /// A ticket for one stream.
    IssueTicket,
    /// The description of all of them.
    Page(Page),
}

/// The forms in which the routes are described.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The description itself, for programs.
    OpenApi,
    /// The page that shows it.
    Docs,
}

impl Native {
    const ROUTES: [(Method, &'static str, Access, Native); 8] = [
        (Method::GET, "/", Access::Public, Native::Index),
        (Method::GET, "/openapi.json", Access::Public, Native::Page(Page::OpenApi)),
        (Method::GET, "/docs", Access::Public, Native::Page(Page::Docs)),
        (Method::POST, "/v1/auth/tokens", Access::Public, Native::IssueToken),
        (Method::POST, "/v1/auth/tokens:verify", Access::Public, Native::VerifyToken),
        (Method::POST, "/v1/auth/tokens:refresh", Access::Public, Native::RefreshToken),
        (Method::POST, "/v1/auth/tokens:revoke", Access::Public, Native::RevokeToken),
        (Method::POST, "/v1/auth/tickets", Access::Authenticated, Native::IssueTicket),
    ];
}

#[derive(Debug)]
pub enum Endpoint {
    /// A service.
    Rpc(Arc<Rpc>),
    /// The gateway.
    Native(Native),
}

/// A path that is answered.
#[derive(Debug)]
pub struct Route {
    pub method: Method,
    /// The template as written; the name of the route in metrics.
    pub template: Arc<str>,
    /// Method and template; the name of the route in traces.
    pub name: String,
    /// The callers that it is open to.
    pub access: Access,
    pub endpoint: Endpoint,
}

impl Route {
    fn new(method: Method, template: &str, access: Access, endpoint: Endpoint) -> Self {
        Self { name: format!("{method} {template}"), method, template: template.into(), access, endpoint }
    }

    /// Returns whether its answer is a stream of events.
    pub fn is_stream(&self) -> bool {
        matches!(&self.endpoint, Endpoint::Rpc(rpc) if rpc.streaming)
    }
}

/// The routes of one template, by method.
#[derive(Debug, Default)]
struct PathRoutes {
    routes: Vec<Arc<Route>>,
}

/// The result of looking up a method and path.
#[derive(Debug)]
pub enum Lookup {
    /// The path has this route.
    Found(Arc<Route>),
    /// An OPTIONS: the methods of the path, as the value of an `Allow` header.
    Options(HeaderValue),
    /// The path has these methods only: the value of an `Allow` header.
    WrongMethod(HeaderValue),
    /// The path is not known.
    Unknown,
}

#[derive(Debug)]
pub struct Table {
    by_path: Router<PathRoutes>,
    /// The routes of methods, by the path of their call in gRPC.
    calls: HashMap<String, Arc<Route>>,
    routes: Vec<Arc<Route>>,
}

impl Table {
    /// Reads the routes of an encoded descriptor set and adds the gateway's own.
    pub fn of_contract(descriptor_set: &[u8]) -> Result<Self, RouteError> {
        let pool = DescriptorPool::decode(descriptor_set)?;
        let own = |(method, template, access, native)| Route::new(method, template, access, Endpoint::Native(native));
        let mut routes: Vec<Route> = Native::ROUTES.map(own).into();
        for binding in annotation::bindings(&pool)? {
            let endpoint = Endpoint::Rpc(Arc::new(binding.rpc));
            routes.push(Route::new(binding.method, &binding.text, binding.access, endpoint));
        }
        Self::of_routes(routes.into_iter().map(Arc::new).collect())
    }

    fn of_routes(routes: Vec<Arc<Route>>) -> Result<Self, RouteError> {
        let mut by_template: BTreeMap<&str, PathRoutes> = BTreeMap::new();
        for route in &routes {
            let at_path = by_template.entry(&route.template).or_default();
            if at_path.routes.iter().any(|other| other.method == route.method) {
                return Err(RouteError::Duplicate { route: route.name.clone() });
            }
            at_path.routes.push(Arc::clone(route));
        }
        let mut by_path = Router::new();
        for (template, at_path) in by_template {
            let conflict = |error| RouteError::Conflict { template: template.to_owned(), error };
            by_path.insert(template, at_path).map_err(conflict)?;
        }
        let calls = routes.iter().filter_map(|route| match &route.endpoint {
            Endpoint::Rpc(rpc) => Some((rpc.grpc_path.as_str().to_owned(), Arc::clone(route))),
            Endpoint::Native(_) => None,
        });
        Ok(Self { by_path, calls: calls.collect(), routes })
    }

    pub fn routes(&self) -> impl Iterator<Item = &Route> {
        self.routes.iter().map(Arc::as_ref)
    }

    /// Returns the route of the method of this path in gRPC, if it can be called from outside.
    pub fn find_call(&self, grpc_path: &str) -> Option<Arc<Route>> {
        self.calls.get(grpc_path).cloned()
    }

    /// Finds the route. A HEAD is answered as a GET; the server leaves the body out. `OPTIONS *` asks about all paths
    /// together.
    pub fn find(&self, method: &Method, path: &str) -> Lookup {
        if *method == Method::OPTIONS && path == "*" {
            return Lookup::Options(HeaderValue::from_static("GET, HEAD, POST, OPTIONS"));
        }
        let path = unescaped(path);
        let Ok(found) = self.by_path.at(&path) else { return Lookup::Unknown };
        // No id has a colon: after one comes a verb, and not one of this path.
        if found.params.iter().any(|(_, value)| value.contains(':')) {
            return Lookup::Unknown;
        }
        let wanted = if method == Method::HEAD { &Method::GET } else { method };
        match found.value.routes.iter().find(|route| route.method == *wanted) {
            Some(route) => Lookup::Found(Arc::clone(route)),
            None if *method == Method::OPTIONS => Lookup::Options(found.value.allow()),
            None => Lookup::WrongMethod(found.value.allow()),
        }
    }
}

impl PathRoutes {
    fn allow(&self) -> HeaderValue {
        let mut methods: Vec<_> = self.routes.iter().map(|route| route.method.as_str()).collect();
        if methods.contains(&"GET") {
            methods.push("HEAD");
        }
        methods.push("OPTIONS");
        HeaderValue::from_str(&methods.join(", ")).expect("method names are header text")
    }
}

/// Decodes characters that need no encoding: such a path is the same one by RFC 3986, 6.2.2.2. A slash or a colon that
/// is encoded belongs to a variable and stays so.
fn unescaped(path: &str) -> Cow<'_, str> {
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut parts = path.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.map(char::from) {
            Some(char) if char.is_ascii_alphanumeric() || "-._~".contains(char) => {
                plain.push(char);
                plain.push_str(&part[2..]);
            }
            _ => {
                plain.push('%');
                plain.push_str(part);
            }
        }
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::of_contract(stampede_proto::DESCRIPTOR_SET).unwrap()
    }

    fn grpc_path(method: Method, path: &str) -> String {
        match table().find(&method, path) {
            Lookup::Found(route) => match &route.endpoint {
                Endpoint::Rpc(rpc) => rpc.grpc_path.to_string(),
                Endpoint::Native(native) => format!("{native:?}"),
            },
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn what_is_named_a_read_is_a_get_and_nothing_else_is() {
        for (path, route) in &table().calls {
            let Endpoint::Rpc(rpc) = &route.endpoint else { panic!("{path} calls no service") };
            let (_, name) = path.rsplit_once('/').unwrap();
            let is_read = ["Get", "List", "Watch"].iter().any(|verb| name.starts_with(verb));
            assert_eq!((rpc.read_only, route.method == Method::GET), (is_read, is_read), "{path}");
        }
    }

    #[test]
    fn the_contract_is_reached_as_annotated() {
        for (method, path, expected) in [
            (Method::GET, "/", "Index"),
            (Method::GET, "/openapi.json", "Page(OpenApi)"),
            (Method::HEAD, "/docs", "Page(Docs)"),
            (Method::POST, "/v1/auth/tokens", "IssueToken"),
            (Method::POST, "/v1/auth/tokens:refresh", "RefreshToken"),
            (Method::POST, "/v1/auth/tokens:revoke", "RevokeToken"),
            (Method::POST, "/v1/auth/tickets", "IssueTicket"),
            (Method::GET, "/v1/%65vents", "/stampede.event.v1.EventService/ListEvents"),
            (Method::GET, "/%761/orders/%6Frd_1", "/stampede.order.v1.OrderService/GetOrder"),
            (Method::POST, "/v1/orders/ord_1:p%61y", "/stampede.order.v1.OrderService/PayOrder"),
            (Method::GET, "/v1/orders/ord_1%3Awatch", "/stampede.order.v1.OrderService/GetOrder"),
            (Method::GET, "/v1/orders/a%2Fb", "/stampede.order.v1.OrderService/GetOrder"),
            (Method::GET, "/v1/%", "Unknown"),
            (Method::GET, "/v1/%6", "Unknown"),
            (Method::GET, "/v1/%+5vents", "Unknown"),
            (Method::POST, "/v1/orders", "/stampede.order.v1.OrderService/PlaceOrder"),
            (Method::GET, "/v1/orders", "/stampede.order.v1.OrderService/ListOrders"),
            (Method::HEAD, "/v1/orders/ord_1", "/stampede.order.v1.OrderService/GetOrder"),
            (Method::POST, "/v1/orders/ord_1:pay", "/stampede.order.v1.OrderService/PayOrder"),
            (Method::POST, "/v1/campaigns/cmp_1:claim", "/stampede.coupon.v1.CouponService/ClaimCoupon"),
            (Method::GET, "/v1/events/evt_1/stock:watch", "/stampede.inventory.v1.InventoryService/WatchStock"),
            (Method::GET, "/v1/nothing", "Unknown"),
            (Method::POST, "/v1/orders/ord_1:payy", "Unknown"),
            (Method::GET, "/v1/orders/ord_1:payy", "Unknown"),
            (Method::POST, "/v1/orders/ord_1:payy:pay", "Unknown"),
            (Method::POST, "/v1/orders/:pay", "Unknown"),
            (Method::GET, "/v1/events/", "Unknown"),
            (Method::GET, "/v1/events//stock", "Unknown"),
            (Method::GET, "/v1/events/evt_1/stock/more", "Unknown"),
            (Method::GET, "", "Unknown"),
            (Method::GET, "*", "Unknown"),
        ] {
            assert_eq!(grpc_path(method, path), expected, "{path}");
        }
    }

    #[test]
    fn a_method_without_access_is_out_of_reach() {
        let table = table();
        let reachable: Vec<_> = table
            .routes()
            .filter_map(|route| match &route.endpoint {
                Endpoint::Rpc(rpc) => Some(rpc.grpc_path.as_str()),
                Endpoint::Native(_) => None,
            })
            .collect();
        for hidden in ["HoldCoupons", "ReleaseCoupon", "Reserve", "Release", "StageStock", "LookUpOrders"] {
            assert!(!reachable.iter().any(|path| path.ends_with(&format!("/{hidden}"))), "{hidden} can be reached");
            assert!(!table.calls.keys().any(|path| path.ends_with(&format!("/{hidden}"))), "{hidden} can be called");
        }
        assert!(reachable.iter().all(|path| table.find_call(path).is_some()), "{reachable:?}");
        assert!(reachable.len() >= 20, "{reachable:?}");
    }

    #[test]
    fn what_the_gateway_itself_does_is_in_the_table_of_repeats() {
        const PAGE: &str = include_str!("../../../docs/idempotency.md");
        for (method, path, _, native) in Native::ROUTES {
            let writes = method == Method::POST && native != Native::VerifyToken;
            assert_eq!(PAGE.contains(&format!("| `POST {path}` |")), writes, "{method} {path} in docs/idempotency.md");
        }
    }

    #[test]
    fn access_is_what_the_contract_says() {
        let access = |method, path: &str| match table().find(&method, path) {
            Lookup::Found(route) => route.access,
            other => panic!("{path}: {other:?}"),
        };
        assert_eq!(access(Method::POST, "/v1/events"), Access::Operator);
        assert_eq!(access(Method::GET, "/v1/events"), Access::Public);
        assert_eq!(access(Method::POST, "/v1/orders"), Access::Authenticated);
    }

    #[test]
    fn a_wrong_method_gets_the_right_ones() {
        match table().find(&Method::DELETE, "/v1/orders") {
            Lookup::WrongMethod(allow) => {
                let mut methods: Vec<_> = allow.to_str().unwrap().split(", ").collect();
                methods.sort_unstable();
                assert_eq!(methods, ["GET", "HEAD", "OPTIONS", "POST"]);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_path_takes_can_be_asked_for() {
        for (path, expected) in [("*", "GET, HEAD, POST, OPTIONS"), ("/v1/orders/ord_1:pay", "POST, OPTIONS")] {
            match table().find(&Method::OPTIONS, path) {
                Lookup::Options(allow) => assert_eq!(allow, expected, "{path}"),
                other => panic!("{path}: {other:?}"),
            }
        }
        assert!(matches!(table().find(&Method::OPTIONS, "/v1/nothing"), Lookup::Unknown));
    }
}
