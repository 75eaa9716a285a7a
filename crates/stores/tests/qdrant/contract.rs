//! What every index must do.

use super::server::Server;

tidewheel_testkit::index_contract!(Server::any().await);
