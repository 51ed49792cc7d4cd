//! Identity of callers within the mesh: one metadata entry, signed with a shared secret.
//!
//! An entry has its signer (a process, or an operator), the role and user of the call, and its expiry. The signature
//! covers these and the path of the method, so a leaked entry can only repeat the same call of the same user for half a
//! minute. An operator can sign one for all methods. Must not know gRPC, nor the access rules.
//!
//! ```
//! use stampede_identity::{Caller, Claim, Keys, Role, Scope, User};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keys = Keys::parse("a secret of the mesh, 32 bytes or more")?;
//! let claim = Claim { caller: Caller::Operator, role: Some(Role::Operator), user: User::One("usr_1") };
//! let entry = keys.sign(claim, Scope::Method("/a.B/C"), 60)?;
//! assert_eq!(keys.verify(&entry, "/a.B/C", 30)?, claim);
//! assert!(keys.verify(&entry, "/a.B/D", 30).is_err());
//! # Ok(())
//! # }
//! ```

#![warn(missing_docs)]

mod caller;
mod claim;
mod hex;
mod keys;
mod role;

pub use caller::{Caller, UnknownCaller};
pub use claim::{Claim, Scope, User};
pub use keys::{Keys, KeysError, NoUserId, Refusal};
pub use role::{Role, UnknownRole};

/// Metadata with the signed entry.
pub const IDENTITY_METADATA: &str = "x-stampede-identity";

/// Validity of an entry that a process signs for one call, in seconds.
pub const CALL_LIFE_S: i64 = 30;
