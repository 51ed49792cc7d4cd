//! What was acknowledged is never lost: the service is killed in the middle of things and goes on.

use crate::sale::{LONG, Sale, UNITS};
use anyhow::Result;
use stampede_proto::order::v1::OrderState;
use stampede_testkit::{Service, buyer, eventually};
use std::time::Duration;

#[tokio::test]
async fn accepted_orders_survive_a_kill_and_move_on() -> Result<()> {
    let mut sale = Sale::open().await?;
    let crowd: Vec<_> = (0..UNITS).map(|_| buyer()).collect();
    let mut placed = Vec::new();
    for somebody in &crowd {
        placed.push(sale.place(*somebody, sale.wish("r", &[(sale.lamp, 1)])).await?);
    }
    sale.mesh.kill_9(Service::Order)?;
    sale.mesh.restart(Service::Order).await?;
    for order in &placed {
        let payable = sale.reaches(order, OrderState::AwaitingPayment).await;
        let paying = sale.pay(&payable, "p").await?;
        sale.approve(&paying).await?;
    }
    sale.mesh.kill_9(Service::Order)?;
    sale.mesh.restart(Service::Order).await?;
    for order in &placed {
        let fulfilled = sale.reaches(order, OrderState::Fulfilled).await;
        assert_eq!((fulfilled.goods.len(), fulfilled.version), (1, 3), "each step taken once");
        let published: Vec<i64> = sale.published(order).await?.into_iter().map(|(_, version)| version).collect();
        assert_eq!(published, [1, 2, 3]);
    }
    assert_eq!(sale.settles_at(sale.lamp, 0).await.committed_units, UNITS);
    Ok(())
}

#[tokio::test]
async fn deadlines_are_kept_across_a_kill() -> Result<()> {
    let mut sale = Sale::with_time_to_pay(LONG).await?;
    let order = sale.payable_lamp(buyer()).await?;
    sale.mesh.kill_9(Service::Order)?;
    sale.time_is_over(&order).await?;
    sale.mesh.restart(Service::Order).await?;
    sale.reaches(&order, OrderState::Expired).await;
    sale.settles_at(sale.lamp, UNITS).await;
    Ok(())
}

#[tokio::test]
async fn a_request_cut_off_by_a_kill_may_be_repeated() -> Result<()> {
    let mut sale = Sale::open().await?;
    let crowd: Vec<_> = (0..40).map(|_| buyer()).collect();
    let placing = crowd.iter().map(|somebody| sale.place(*somebody, sale.wish("r", &[(sale.kettle, 1)])));
    let cut = tokio::time::timeout(Duration::from_millis(30), futures_util::future::join_all(placing)).await;
    sale.mesh.kill_9(Service::Order)?;
    drop(cut);
    sale.mesh.restart(Service::Order).await?;
    let mut accepted = 0;
    for somebody in crowd {
        let wish = sale.wish("r", &[(sale.kettle, 1)]);
        let answer = eventually("the repeat is answered", || async {
            match sale.place(somebody, wish.clone()).await {
                Ok(order) => Some(Some(order)),
                Err(status) if status.code() == tonic::Code::FailedPrecondition => Some(None),
                Err(_) => None,
            }
        })
        .await;
        if let Some(order) = answer {
            sale.reaches(&order, OrderState::AwaitingPayment).await;
            accepted += 1;
        }
    }
    assert_eq!(accepted, UNITS, "every unit is sold, none twice");
    assert_eq!(sale.orders_written().await?, i64::from(UNITS));
    assert_eq!(sale.settles_at(sale.kettle, 0).await.committed_units, UNITS);
    Ok(())
}
