//! That what was found stays mended, and that a leak would be found.

use std::fs;
use std::path::Path;

use crate::conversation::Conversation;
use crate::runs::run;
use crate::shrink::shrink;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_found_before_holds() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/isolation/regressions");
    let mut played = 0;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let conversation: Conversation = text.parse().unwrap();
        if let Err(failure) = run(&conversation).await {
            panic!("{} fails again:\n{failure}", path.display());
        }
        played += 1;
    }
    assert!(played > 0);
}

/// A world in which what is Bob's is everybody's: what the operator writes is read by
/// Alice, so that the two servers differ for her.
const LEAKY: &str = "
operator query> CREATE TABLE t1 (id BIGINT PRIMARY KEY, n BIGINT, title VARCHAR)
operator query> CREATE TABLE t2 (id BIGINT PRIMARY KEY, n BIGINT)
bob@one query> INSERT INTO t1 (id, n, title) VALUES (1, 777, 'canary')
operator@one query> INSERT INTO t1 (id, n, title) VALUES (7, 777, 'canary')
alice query> SELECT count(*) FROM t2 WHERE id = 1
alice query> SELECT a.id, a.title FROM t1 AS a LEFT JOIN t2 AS b ON a.id = b.id WHERE 1 / (a.n - 777) = 0 AND a.title <> 'x' ORDER BY a.id LIMIT 3
alice query> SELECT count(*) FROM t1
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leak_is_found_and_made_small() {
    let conversation: Conversation = LEAKY.parse().unwrap();
    let failure = run(&conversation).await.unwrap_err();
    let shrunk = shrink(&conversation, failure).await;
    let text = shrunk.conversation.to_string();
    // The table, the row, and a question that fails on it.
    assert_eq!(shrunk.conversation.lines.len(), 3, "{text}");
    assert!(text.contains("CREATE TABLE t1"), "{text}");
    assert!(
        text.contains("operator@one query> INSERT INTO t1"),
        "{text}"
    );
    let question = shrunk.conversation.lines[2].text.as_str();
    assert!(question.len() < 60, "{text}");
    assert!(
        shrunk.failure.to_string().contains("division by zero"),
        "{}",
        shrunk.failure
    );
    // What is printed is what is replayed.
    let again: Conversation = text.parse().unwrap();
    assert!(run(&again).await.is_err());
}
