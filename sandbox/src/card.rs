//! The test cards: the token of a payment method decides the end of its charge, and of the refunds of that. No other
//! token is accepted.

/// The end of a charge with this token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Card {
    /// Captured at once.
    Ok,
    Declined,
    InsufficientFunds,
    Expired,
    /// Captured at once, but the answer comes late.
    TimeoutCaptured,
    /// The first request under a key is lost without a trace; a repeat is captured.
    TimeoutLost,
    /// Answered `pending`, and captured later.
    Late,
    /// Captured at once. A refund of it is answered `pending`, and done later.
    RefundLate,
    /// Captured at once. A refund of it is answered `pending`, and fails later.
    RefundFailed,
}

/// The end of a refund.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefundEnd {
    /// Done at once.
    AtOnce,
    /// Answered `pending`, and done later.
    Late,
    /// Answered `pending`, and failed later.
    Failed,
}

impl Card {
    pub(crate) const TOKENS: [(&str, Card); 9] = [
        ("pm_card_ok", Card::Ok),
        ("pm_card_declined", Card::Declined),
        ("pm_card_insufficient_funds", Card::InsufficientFunds),
        ("pm_card_expired", Card::Expired),
        ("pm_card_timeout_captured", Card::TimeoutCaptured),
        ("pm_card_timeout_lost", Card::TimeoutLost),
        ("pm_card_late", Card::Late),
        ("pm_card_refund_pending", Card::RefundLate),
        ("pm_card_refund_failed", Card::RefundFailed),
    ];

    /// Returns the card of a token, if it is one of the test cards.
    pub(crate) fn parse(token: &str) -> Option<Card> {
        let known = Card::TOKENS.iter().find(|(known, _)| *known == token);
        known.map(|(_, card)| *card)
    }

    /// Returns the reason for which this card is refused; `None` if it is not.
    pub(crate) fn decline_code(self) -> Option<&'static str> {
        match self {
            Card::Declined => Some("card_declined"),
            Card::InsufficientFunds => Some("insufficient_funds"),
            Card::Expired => Some("expired_card"),
            Card::Ok
            | Card::TimeoutCaptured
            | Card::TimeoutLost
            | Card::Late
            | Card::RefundLate
            | Card::RefundFailed => None,
        }
    }

    /// Returns the end of a refund of a charge with this card.
    pub(crate) fn refund_end(self) -> RefundEnd {
        match self {
            Card::RefundLate => RefundEnd::Late,
            Card::RefundFailed => RefundEnd::Failed,
            Card::Ok
            | Card::Declined
            | Card::InsufficientFunds
            | Card::Expired
            | Card::TimeoutCaptured
            | Card::TimeoutLost
            | Card::Late => RefundEnd::AtOnce,
        }
    }
}
