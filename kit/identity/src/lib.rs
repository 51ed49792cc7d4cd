//! Who calls within the mesh: one metadata entry, which the processes of a mesh sign with a secret that they share.
//!
//! An entry says who has signed it (a process, or an operator), the role and the user for whom the call is made, and
//! until when it holds. The signature covers all of that and the method's path, so an entry that somebody has seen is
//! good for the same call, of the same user, for half a minute. An operator can sign one for all methods.
//! Must not know gRPC, nor who may call what.
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

/// How long an entry holds that a process signs for one call, in seconds.
pub const CALL_LIFE_S: i64 = 30;
