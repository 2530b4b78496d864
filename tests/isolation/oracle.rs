//! Differential and metamorphic checks: what a shared server yields, a dedicated one
//! does too, and so do the same rows that are asked for in another way.

use crate::generate;
use crate::interference::hold;
use crate::runs::SHAPES;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shared_server_answers_alice_as_a_dedicated_one_and_as_its_parts() {
    hold("dedicated server", 400, generate::shared, &SHAPES).await;
}
