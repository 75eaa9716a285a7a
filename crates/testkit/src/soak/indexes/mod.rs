//! Declared indexes, and changes of their declarations during a run.
//!
//! Guarantees:
//!
//! - **From the seed.** The seed determines the changes, the flags of their commands, which commands are killed, and during
//!   which ones the producers are.
//! - **As an operator does it.** Each change is written to the settings file, which services read at their next start, and
//!   made by the commands `apply` and `rollback`.
//! - **At the end every index is as declared.** The last declarations are applied after healing. Then each index has to
//!   equal its oracle, and Qdrant must have no collection and no alias that the catalog does not name.

mod changes;
mod declarations;
mod operator;
mod settling;

pub(super) use self::declarations::{Declarations, EVERYTHING, NAMES};
pub(super) use self::operator::Operator;
pub(super) use self::settling::Settling;
