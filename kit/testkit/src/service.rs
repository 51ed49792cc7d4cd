//! The processes that a mesh is made of.

/// One kind of process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// The payment provider to practise against.
    Sandbox,
    /// The event service.
    Event,
    /// The coupon service.
    Coupon,
    /// The inventory service.
    Inventory,
    /// The order service.
    Order,
    /// The payment service.
    Payment,
    /// The HTTP gateway.
    Gateway,
}

impl Service {
    /// Every process, in an order in which each finds what it needs.
    pub const ALL: [Self; 7] =
        [Self::Sandbox, Self::Event, Self::Coupon, Self::Inventory, Self::Order, Self::Payment, Self::Gateway];

    /// The five services of the mesh.
    pub const SERVICES: [Self; 5] = [Self::Event, Self::Coupon, Self::Inventory, Self::Order, Self::Payment];

    /// Name, as in `stampede serve <name>`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sandbox => "sandbox",
            Self::Event => "event",
            Self::Coupon => "coupon",
            Self::Inventory => "inventory",
            Self::Order => "order",
            Self::Payment => "payment",
            Self::Gateway => "gateway",
        }
    }
}
