//! The result of an audit, promise by promise.

use super::named::Named;
use serde::Serialize;

/// The promises, in the order of the design, in a few words each.
pub const PROMISES: [&str; 8] = [
    "never oversold",
    "one coupon each, within the quota",
    "charged once, for committed units only",
    "nothing acknowledged is lost",
    "every order ends, nothing stays stuck",
    "events open and close once, on time",
    "messages take effect in order, once each",
    "the order of arrival is kept",
];

/// The number of a promise, 1 to 8.
pub type Number = usize;

/// The result of all checks.
#[derive(Debug, Serialize)]
pub struct Audit {
    /// Whether the audit found no breach, and nothing moved meanwhile.
    pub holds: bool,
    /// One for each promise, in order.
    pub promises: Vec<Promise>,
    /// Counts that were not zero when the wait was over, or that changed while breaches were found; empty if the mesh
    /// was quiet. Otherwise nothing is proven.
    pub still_moving: Vec<String>,
    /// Lists the comparisons that were left out, and the reason: not requested, or no longer retained.
    pub left_out: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Promise {
    /// 1 to 8.
    pub number: Number,
    /// In a few words.
    pub promise: &'static str,
    /// Whether it has no breach.
    pub holds: bool,
    /// Numbers of things that were compared.
    pub figures: Vec<Figure>,
    pub breaches: Vec<Breach>,
}

/// A number that was compared.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// The unit that was counted.
    pub name: String,
    pub value: i64,
}

/// One way in which a promise is broken.
#[derive(Debug, Clone, Serialize)]
pub struct Breach {
    /// The rule that is broken.
    pub what: String,
    /// The number of breaches, and the first of them.
    #[serde(flatten)]
    pub found: Named,
}

impl Audit {
    /// Returns a result without breaches, with all that still moves.
    pub fn new(still_moving: Vec<String>) -> Self {
        let promise = |(index, promise): (usize, &&'static str)| Promise {
            number: index + 1,
            promise,
            holds: true,
            figures: Vec::new(),
            breaches: Vec::new(),
        };
        let promises = PROMISES.iter().enumerate().map(promise).collect();
        Self { holds: still_moving.is_empty(), promises, still_moving, left_out: Vec::new() }
    }

    /// Notes a number that was compared for a promise.
    pub fn figure(&mut self, number: Number, name: impl Into<String>, value: i64) {
        self.promise(number).figures.push(Figure { name: name.into(), value });
    }

    /// Notes breaches of a promise, next to others of the same rule; nothing if there are none.
    pub fn breach(&mut self, number: Number, what: impl Into<String>, found: Named) {
        if found.is_empty() {
            return;
        }
        self.holds = false;
        let promise = self.promise(number);
        promise.holds = false;
        let what = what.into();
        match promise.breaches.iter_mut().find(|breach| breach.what == what) {
            Some(breach) => breach.found.merge(found),
            None => promise.breaches.push(Breach { what, found }),
        }
    }

    /// Notes that something moved while it was compared, unless something did before: either way nothing is proven.
    pub fn moved(&mut self, what: impl Into<String>) {
        self.holds = false;
        if self.still_moving.is_empty() {
            self.still_moving.push(what.into());
        }
    }

    /// Notes a comparison that could not be made, and the reason.
    pub fn leave_out(&mut self, what: impl Into<String>) {
        self.left_out.push(what.into());
    }

    fn promise(&mut self, number: Number) -> &mut Promise {
        &mut self.promises[number - 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_breach_breaks_its_promise_and_no_other() {
        let mut audit = Audit::new(Vec::new());
        audit.breach(3, "charged twice", Named::default());
        assert!(audit.holds);
        audit.breach(3, "charged twice", (0..30).map(|n| format!("pay_{n}")).collect());
        assert!(!audit.holds);
        let broken: Vec<_> = audit.promises.iter().filter(|promise| !promise.holds).collect();
        assert_eq!((broken.len(), broken[0].number, broken[0].breaches[0].found.count()), (1, 3, 30));
        assert_eq!(broken[0].breaches[0].found.names().len(), 30, "all are named");
    }

    #[test]
    fn a_rule_that_is_broken_at_two_places_is_one_breach() {
        let mut audit = Audit::new(Vec::new());
        for payment in ["pay_1", "pay_2"] {
            audit.breach(3, "charged twice", Named::from_iter([payment.to_owned()]));
        }
        let [breach] = audit.promises[2].breaches.as_slice() else { panic!("{audit:?}") };
        assert_eq!(breach.found.names(), ["pay_1", "pay_2"]);
        let json = serde_json::to_value(breach).unwrap();
        assert_eq!(json, serde_json::json!({"what": "charged twice", "count": 2, "named": ["pay_1", "pay_2"]}));
    }

    #[test]
    fn what_still_moves_proves_nothing() {
        let audit = Audit::new(vec!["1 orders on their way".into()]);
        assert!(!audit.holds);
        assert!(audit.promises.iter().all(|promise| promise.holds));
        let json = serde_json::to_value(&audit).unwrap();
        assert_eq!((&json["holds"], &json["still_moving"][0]), (&false.into(), &"1 orders on their way".into()));
    }
}
