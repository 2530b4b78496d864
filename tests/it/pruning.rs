//! A tenant's scan reads its own part of a source and little else, as the
//! operator's metrics of a server in a process of its own show.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use crate::harness::{ALICE, http1};

const TENANTS: usize = 20;
const TENANT_ROWS: usize = 5_000;
const COUNT: &str = "select count(title) from";

pub struct Server {
    child: Child,
    grpc: String,
    http: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// A server of its own on `dir`.
    pub fn start(dir: &Path) -> Server {
        let mut child = Command::new(env!("CARGO_BIN_EXE_jammi"))
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(["--http-listen", "127.0.0.1:0", "--artifact-dir"])
            .arg(dir.join("artifacts"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut line = || lines.next().unwrap().unwrap();
        let grpc = line().strip_prefix("listening ").unwrap().to_owned();
        let http = line().strip_prefix("listening http://").unwrap().parse();
        Server {
            child,
            grpc,
            http: http.unwrap(),
        }
    }

    /// What Alice's command writes.
    fn alice(&self, arguments: &[&str]) -> String {
        self.command(Some(ALICE), arguments)
    }

    /// What the command of `tenant` writes.
    pub fn command(&self, tenant: Option<&str>, arguments: &[&str]) -> String {
        let tenant = tenant.map(|tenant| ["--tenant", tenant]);
        let ran = Command::new(env!("CARGO_BIN_EXE_jammi"))
            .args(tenant.iter().flatten())
            .args(["--url", &self.grpc])
            .args(arguments)
            .output()
            .unwrap();
        assert!(ran.status.success(), "{ran:?}");
        String::from_utf8(ran.stdout).unwrap()
    }

    /// Alice counts the rows of `source`; what the counter `metric` grew by.
    async fn grown(&self, source: &str, metric: &str) -> u64 {
        let before = self.metric(metric).await;
        let sql = format!("{COUNT} {source}.public.{source}");
        let rows = self.alice(&["query", "--format", "csv", &sql]);
        assert_eq!(rows.lines().last(), Some(TENANT_ROWS.to_string().as_str()));
        self.metric(metric).await - before
    }

    /// What a counter is at.
    pub async fn metric(&self, name: &str) -> u64 {
        let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let page = http1(self.http, request).await;
        let line = page.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value.map_or(0, |value| value.parse().unwrap())
    }
}

/// Alice's id in the midst of others.
fn tenant(index: usize) -> String {
    match index == TENANTS / 2 {
        true => ALICE.to_owned(),
        false => format!("018f5a0e-c4c8-7e10-9{:03x}-3b6f7c5a8e9a", index * 0xc0),
    }
}

fn rows(index: usize) -> RecordBatch {
    let start = (index * TENANT_ROWS) as i64;
    let ids = start..start + TENANT_ROWS as i64;
    let titles = ids.clone().map(|id| format!("title {}", id * 7919));
    RecordBatch::try_from_iter([
        (
            "id",
            Arc::new(Int64Array::from_iter_values(ids)) as ArrayRef,
        ),
        (
            "tenant_id",
            Arc::new(StringArray::from(vec![tenant(index); TENANT_ROWS])),
        ),
        ("title", Arc::new(StringArray::from_iter_values(titles))),
    ])
    .unwrap()
}

fn write(path: &Path, batches: impl Iterator<Item = RecordBatch>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut batches = batches.peekable();
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(TENANT_ROWS * 5))
        .set_data_page_row_count_limit(1_000)
        .set_dictionary_enabled(false)
        .build();
    let file = fs::File::create(path).unwrap();
    let schema = batches.peek().unwrap().schema();
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties)).unwrap();
    batches.for_each(|batch| writer.write(&batch).unwrap());
    writer.close().unwrap();
}

#[tokio::test]
async fn a_tenants_scan_skips_the_files_row_groups_and_pages_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut order: Vec<usize> = (0..TENANTS).collect();
    order.sort_by_key(|index| tenant(*index));
    let sorted = dir.path().join("sorted.parquet");
    write(&sorted, order.iter().map(|index| rows(*index)));
    let hive = dir.path().join("hive");
    for index in order {
        let own = hive.join(format!("tenant_id={}", tenant(index)));
        let mut rows = rows(index);
        rows.remove_column(1);
        write(&own.join("part.parquet"), [rows].into_iter());
    }
    let server = Server::start(dir.path());
    for (name, path) in [("sorted", &sorted), ("hive", &hive)] {
        server.alice(&["sources", "add", name, path.to_str().unwrap()]);
    }

    // One row group in four, and of it a page in five: the footer, twice the
    // tenant's pages at most, and those of its id.
    let size = fs::metadata(&sorted).unwrap().len();
    let bytes = server.grown("sorted", "jammi_scan_bytes_total").await;
    assert!(bytes < size / 6, "{bytes} of {size}");
    let skipped = "jammi_scan_row_groups_total{outcome=\"skipped\"}";
    let read = "jammi_scan_row_groups_total{outcome=\"read\"}";
    assert!(server.grown("sorted", skipped).await >= 2);
    assert!(server.grown("sorted", read).await <= 2);

    // Directories of others are not even listed.
    let read = "jammi_scan_files_total{outcome=\"read\"}";
    assert_eq!(server.grown("hive", read).await, 1);
    let own = hive.join(format!("tenant_id={ALICE}/part.parquet"));
    let size = fs::metadata(own).unwrap().len();
    let bytes = server.grown("hive", "jammi_scan_bytes_total").await;
    assert!(bytes <= size, "{bytes} of {size}");
}
