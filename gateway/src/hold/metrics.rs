//! Metrics of permits in use, and of refusals and disconnects at a limit.

use super::{
    Class,
    pool::{By, Pool},
};
use opentelemetry::{KeyValue, global, metrics::Counter};
use std::sync::Weak;

/// Returns the counter of refusals, by resource and by the owner of the limit.
pub fn refusals() -> Counter<u64> {
    global::meter("stampede")
        .u64_counter("stampede.gateway.refused")
        .with_description("Requests that a bound on what clients hold refused.")
        .build()
}

/// Returns the labels of a refusal.
pub fn refusal(held: &'static str, by: By) -> [KeyValue; 2] {
    [KeyValue::new("held", held), KeyValue::new("by", by.name())]
}

/// Returns the counter of watchers that were disconnected for being too slow. That is rare, so the counter is not
/// cached.
pub fn slow_readers() -> Counter<u64> {
    global::meter("stampede")
        .u64_counter("stampede.gateway.slow_readers")
        .with_description("Watchers that were given up because they took nothing.")
        .build()
}

/// Observes the use of each pool, for as long as it lives. This costs a request nothing.
pub fn observe<const N: usize>(pools: [Weak<Pool>; N]) {
    global::meter("stampede")
        .u64_observable_gauge("stampede.gateway.held")
        .with_description("Units that clients hold: requests, bytes of bodies and answers, streams, subjects.")
        .with_callback(move |gauge| {
            for pool in pools.iter().filter_map(Weak::upgrade) {
                let (kept, common) = pool.in_use();
                let name = KeyValue::new("held", pool.bounds.name);
                gauge.observe(common as u64, &[name.clone(), KeyValue::new("share", "common")]);
                for class in Class::ALL.into_iter().filter(|class| pool.kept(*class) > 0) {
                    let share = KeyValue::new("share", class.name());
                    gauge.observe(kept[class.number()] as u64, &[name.clone(), share]);
                }
            }
        })
        .build();
}
