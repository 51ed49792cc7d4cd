//! Checks the time to pay of the mesh against the sale file.

use super::{plan::Ending, stage::Stage};
use stampede_sale::Sale;
use std::{future, time::Duration};

/// Waits until the mesh shows a time to pay other than that of the sale file; or, without one there, one so long that
/// abandoned orders would outlast `deadline`. Returns the error, and never returns otherwise.
pub async fn wrong_pay_window(stage: &Stage, sale: &Sale, deadline: Duration) -> anyhow::Error {
    let window = stage.follow.pay_window().await;
    let said = sale.pay_window_ms.as_ref().map(|said| said.get_ref().millis());
    let never_paid = stage.plan.buyers.iter().any(|buyer| buyer.ending == Ending::Abandons);
    match objection(window, said, never_paid.then_some(deadline)) {
        Some(objection) => anyhow::Error::msg(objection),
        None => future::pending().await,
    }
}

fn objection(window: Duration, said: Option<Duration>, longest: Option<Duration>) -> Option<String> {
    let is = window.as_millis();
    let mesh = format!("orders of this mesh wait {is} ms for their payment");
    match (said, longest) {
        (Some(said), _) if said != window => {
            let said = said.as_millis();
            Some(format!(
                "{mesh}, but the sale says pay_window_ms = {said}: start the order service with \
                 STAMPEDE_PAY_WINDOW_MS={said}, or say pay_window_ms = {is} in the sale file"
            ))
        }
        (None, Some(longest)) if window >= longest => Some(format!(
            "{mesh}, so those that nobody pays outlast --deadline-s {}: start the order service with a shorter \
             STAMPEDE_PAY_WINDOW_MS, and say the same as pay_window_ms in the sale file",
            longest.as_secs()
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_window_other_than_the_sale_says_is_objected_to_with_what_mends_it() {
        let objection = objection(seconds(600), Some(seconds(6)), None).unwrap();
        assert!(objection.contains("wait 600000 ms") && objection.contains("pay_window_ms = 6000"), "{objection}");
        assert!(objection.contains("STAMPEDE_PAY_WINDOW_MS=6000"), "{objection}");
    }

    #[test]
    fn a_window_that_outlasts_the_simulation_is_objected_to_where_somebody_never_pays() {
        assert!(objection(seconds(600), None, Some(seconds(300))).unwrap().contains("outlast --deadline-s 300"));
        assert_eq!(objection(seconds(600), None, None), None);
    }

    #[test]
    fn the_window_that_the_sale_says_is_fine() {
        assert_eq!(objection(seconds(6), Some(seconds(6)), Some(seconds(300))), None);
        assert_eq!(objection(seconds(6), None, Some(seconds(300))), None);
    }
}
