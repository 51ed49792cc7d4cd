//! Amounts are minor units of whatever currency, and the same number everywhere.

use crate::sale::{Order, Sale};
use anyhow::Result;
use stampede_proto::{payment::v1::PaymentState, r#type::v1::Money};

#[tokio::test]
async fn currencies_without_cents_and_with_three_digits_are_charged_and_refunded_unscaled() -> Result<()> {
    let sale = Sale::open().await?;
    for currency in ["JPY", "KRW", "KWD"] {
        let order = Order::new();
        let amount = Money { minor_units: 1_999, currency: currency.to_owned() };
        sale.publish(&order, order.charge_of(1, amount.clone(), "pm_card_ok")).await?;
        let payment = sale.reaches(&order, PaymentState::Captured).await;
        assert_eq!((payment.amount.as_ref(), payment.captured.as_ref()), (Some(&amount), Some(&amount)));
        sale.publish(&order, order.refund_of(amount.clone())).await?;
        let payment = sale.reaches(&order, PaymentState::Refunded).await;
        assert_eq!(payment.refunded, Some(amount));
        for book in [sale.charges(&order).await?, sale.refunds(&order).await?] {
            assert_eq!(book.len(), 1, "{currency}");
            assert_eq!((book[0]["amount_minor"].as_i64(), book[0]["currency"].as_str()), (Some(1_999), Some(currency)));
        }
    }
    sale.mesh.stop().await
}
