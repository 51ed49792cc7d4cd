//! Calls of any RPC of the contracts, by its descriptor and with messages as bytes.

use bytes::{Buf, BufMut};
use http::{Method, uri::PathAndQuery};
use prost_reflect::{DescriptorPool, DynamicMessage, ExtensionDescriptor, MessageDescriptor, MethodDescriptor, Value};
use stampede_proto::r#type::v1::Access;
use stampede_testkit::{
    self as testkit, IDENTITY_METADATA, Mesh, Process, Role, Service, forged_identity, signed_identity,
};
use stampede_vocab::UserId;
use std::{collections::BTreeMap, time::Duration};
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};

/// Longest silence of an open stream.
const FIRST_ANSWER: Duration = Duration::from_secs(5);

/// An RPC of the contracts.
#[derive(Debug)]
pub struct Rpc {
    /// Such as `order.PlaceOrder`.
    pub name: String,
    pub service: Service,
    /// Such as `/stampede.order.v1.OrderService/PlaceOrder`.
    pub path: String,
    pub input: MessageDescriptor,
    pub output: MessageDescriptor,
    /// The roles that may call it through the gateway, by the contract.
    pub access: Access,
    /// The processes that may call it for themselves, by the contract.
    pub callers: Vec<String>,
    /// Its route there, with a word in place of the id.
    pub http: Option<(Method, String)>,
}

/// Every RPC of the contracts.
pub fn rpcs() -> Vec<Rpc> {
    let pool = DescriptorPool::decode(stampede_proto::DESCRIPTOR_SET).unwrap();
    let option = |name| pool.get_extension_by_name(name).unwrap();
    let options = ["stampede.type.v1.access", "stampede.type.v1.callers", "google.api.http"].map(option);
    let ours = pool.services().filter(|service| service.full_name().starts_with("stampede."));
    let methods = ours.flat_map(|service| service.methods().collect::<Vec<_>>());
    methods.map(|method| rpc(&method, &options)).collect()
}

fn rpc(method: &MethodDescriptor, [access, callers, http]: &[ExtensionDescriptor; 3]) -> Rpc {
    let service = method.parent_service().full_name().to_owned();
    let package = service.split('.').nth(1).unwrap();
    let options = method.options();
    let rule = options.has_extension(http).then(|| options.get_extension(http));
    Rpc {
        name: format!("{package}.{}", method.name()),
        service: Service::ALL.into_iter().find(|one| one.name() == package).unwrap(),
        path: format!("/{service}/{}", method.name()),
        input: method.input(),
        output: method.output(),
        access: options
            .get_extension(access)
            .as_enum_number()
            .and_then(|number| Access::try_from(number).ok())
            .unwrap(),
        callers: texts(options.get_extension(callers).as_list().unwrap()),
        http: rule.map(|rule| route(rule.as_message().unwrap())),
    }
}

fn texts(list: &[Value]) -> Vec<String> {
    list.iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn route(rule: &DynamicMessage) -> (Method, String) {
    let text = |field| rule.get_field_by_name(field).and_then(|value| value.as_str().map(str::to_owned)).unwrap();
    let (method, template) = match (text("get"), text("post")) {
        (get, post) if post.is_empty() => (Method::GET, get),
        (_, post) => (Method::POST, post),
    };
    let path = match (template.find('{'), template.find('}')) {
        (Some(from), Some(to)) => format!("{}some{}", &template[..from], &template[to + 1..]),
        _ => template,
    };
    (method, path)
}

/// The caller, by the metadata.
#[derive(Debug)]
pub enum Caller {
    /// No metadata.
    Nobody,
    /// An operator in plain, unsigned metadata.
    Plain,
    /// An operator signed with the secret of another mesh.
    Forged,
    /// The metadata that the gateway sends for a caller without a token.
    Anonymous,
    Buyer(UserId),
    Operator,
    /// A process of the mesh, for itself.
    Service(Service),
    /// A process of the mesh that claims to be an operator.
    Presuming(Service),
}

impl Caller {
    /// The name in the contract of a caller that acts for itself.
    pub fn name(&self) -> Option<&'static str> {
        match self {
            Self::Operator => Some("operator"),
            Self::Service(service) => Some(service.name()),
            _ => None,
        }
    }

    fn stamp(&self, metadata: &mut MetadataMap) {
        let somebody = || Some(UserId::random());
        let entry = match self {
            Self::Nobody => return,
            Self::Plain => {
                metadata.insert("x-stampede-role", "operator".parse().unwrap());
                metadata.insert("x-stampede-user", UserId::random().to_string().parse().unwrap());
                return;
            }
            Self::Forged => forged_identity(testkit::Caller::Operator, Some(Role::Operator), somebody()),
            Self::Anonymous => signed_identity(Process::Gateway, None, None),
            Self::Buyer(user) => signed_identity(Process::Gateway, Some(Role::Buyer), Some(*user)),
            Self::Operator => signed_identity(testkit::Caller::Operator, Some(Role::Operator), somebody()),
            Self::Service(service) => signed_identity(*service, Some(Role::Service), None),
            Self::Presuming(service) => signed_identity(*service, Some(Role::Operator), somebody()),
        };
        metadata.insert(IDENTITY_METADATA, entry.parse().unwrap());
    }
}

/// Connections to the ports of all services.
pub struct Ports(BTreeMap<Service, Channel>);

impl Ports {
    pub async fn of(mesh: &Mesh) -> Self {
        let mut channels = BTreeMap::new();
        for service in Service::ALL {
            let endpoint = Endpoint::from_shared(mesh.url(service)).unwrap();
            channels.insert(service, endpoint.connect().await.unwrap());
        }
        Self(channels)
    }

    /// Makes a call and returns the first answer; nothing for a stream that is open and has none yet.
    pub async fn call(&self, rpc: &Rpc, caller: &Caller, message: Vec<u8>) -> Result<Vec<u8>, Status> {
        let mut request = Request::new(message);
        caller.stamp(request.metadata_mut());
        self.send(rpc, request).await
    }

    /// Sends a request with its caller, and returns the result of [`Ports::call`].
    pub async fn send(&self, rpc: &Rpc, request: Request<Vec<u8>>) -> Result<Vec<u8>, Status> {
        let mut grpc = Grpc::new(self.0[&rpc.service].clone());
        grpc.ready().await.unwrap();
        let path = PathAndQuery::try_from(rpc.path.as_str()).unwrap();
        let mut answers = grpc.server_streaming(request, path, Bytes).await?.into_inner();
        match tokio::time::timeout(FIRST_ANSWER, answers.message()).await {
            Ok(answer) => Ok(answer?.unwrap_or_default()),
            Err(_) => Ok(Vec::new()),
        }
    }
}

/// Messages as they are.
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}
