//! The tenant that an embedded session is bound to.

use std::sync::Arc;

use parking_lot::RwLock;

use super::TenantId;

/// The tenant that the next statement of an embedded session is for, shared by
/// every clone. Running statements keep the scope that they started with.
#[derive(Clone, Debug, Default)]
pub struct TenantBinding(Arc<RwLock<Option<TenantId>>>);

impl TenantBinding {
    /// Binds to `tenant`, or unbinds with `None`.
    pub fn set(&self, tenant: Option<TenantId>) {
        *self.0.write() = tenant;
    }

    /// The tenant that is bound now.
    pub fn get(&self) -> Option<TenantId> {
        *self.0.read()
    }
}
