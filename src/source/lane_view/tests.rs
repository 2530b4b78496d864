use std::collections::BTreeSet;

use ::parquet::arrow::ArrowWriter;
use ::parquet::file::properties::WriterProperties;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::prelude::SessionContext;
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt};

use super::*;
use crate::source::parquet;
use crate::tenant::{Principal, Scope, TenantId};

const TENANTS: usize = 10;
const TENANT_ROWS: usize = 3_000;
const PAGE_ROWS: usize = 1_000;
const GROUP_ROWS: usize = 12_500;
const ROWS: usize = TENANTS * TENANT_ROWS;

fn tenant(index: usize) -> String {
    format!("{index:08x}-5a5a-4a5a-9a5a-5a5a5a5a5a5a")
}

fn predicate(tenant: Option<&str>) -> LanePredicate {
    let principal = Principal::trusted_network();
    let scope = match tenant {
        Some(tenant) => {
            let tenant: TenantId = tenant.parse().unwrap();
            Scope::tenant_bound(principal, tenant)
        }
        None => Scope::global(principal),
    };
    // Not the file's type: tables read text as views.
    LanePredicate::new(&scope, &arrow::datatypes::DataType::Utf8View).unwrap()
}

struct File {
    session: SessionContext,
    store: Arc<dyn ObjectStore>,
    meta: ObjectMeta,
    dir: tempfile::TempDir,
}

impl File {
    /// A file of a row for each of `tenants`, numbered.
    async fn of(tenants: Vec<Option<String>>) -> File {
        let dir = tempfile::tempdir().unwrap();
        let file = File {
            session: SessionContext::new(),
            store: Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap()),
            meta: ObjectMeta {
                location: Path::from("rows.parquet"),
                last_modified: chrono::Utc::now(),
                size: 0,
                e_tag: None,
                version: None,
            },
            dir,
        };
        file.written(tenants).await
    }

    async fn written(mut self, tenants: Vec<Option<String>>) -> File {
        let ids = Int64Array::from_iter_values(0..tenants.len() as i64);
        let titles = (0..tenants.len()).map(|row| format!("title {}", row * 7919));
        let rows = RecordBatch::try_from_iter_with_nullable([
            ("id", Arc::new(ids) as ArrayRef, false),
            ("tenant_id", Arc::new(StringArray::from(tenants)), true),
            (
                "title",
                Arc::new(StringArray::from_iter_values(titles)),
                true,
            ),
        ])
        .unwrap();
        let properties = WriterProperties::builder()
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_data_page_row_count_limit(PAGE_ROWS)
            .set_write_batch_size(100)
            .build();
        let path = self.dir.path().join("rows.parquet");
        let out = std::fs::File::create(path).unwrap();
        let mut writer = ArrowWriter::try_new(out, rows.schema(), Some(properties)).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
        self.meta = self.store.head(&self.meta.location).await.unwrap();
        self
    }

    async fn view(&self, views: &LaneViews, tenant: Option<&str>) -> Option<Arc<LaneView>> {
        let session = self.session.state();
        let readers = parquet::readers(&session, &self.store);
        let predicate = predicate(tenant);
        let lane = ("tenant_id", &predicate);
        views
            .view(&session, &readers, "file:///", &self.meta, lane)
            .await
    }

    /// The ids of the rows that are read by way of `view`.
    async fn ids(&self, view: &Arc<LaneView>) -> BTreeSet<i64> {
        let session = self.session.state();
        let readers = parquet::readers(&session, &self.store);
        let file = parquet::viewed(PartitionedFile::new_from_meta(self.meta.clone()), view);
        let metrics = ExecutionPlanMetricsSet::new();
        let reader = readers.create_reader(0, file, None, &metrics).unwrap();
        let reader: Box<dyn AsyncFileReader> = reader;
        let builder = ParquetRecordBatchStreamBuilder::new(reader).await.unwrap();
        let selection = view.access.clone();
        let selection = selection.into_overall_row_selection(view.metadata.row_groups());
        let builder = match selection.unwrap() {
            Some(selection) => builder.with_row_selection(selection),
            None => builder,
        };
        let batches: Vec<_> = builder.build().unwrap().try_collect().await.unwrap();
        let ids = batches.iter().flat_map(|batch| {
            let ids = batch.column(0).as_any().downcast_ref::<Int64Array>();
            ids.unwrap().values().to_vec()
        });
        ids.collect()
    }
}

fn sorted() -> Vec<Option<String>> {
    (0..ROWS)
        .map(|row| Some(tenant(row / TENANT_ROWS)))
        .collect()
}

#[tokio::test]
async fn a_sorted_file_is_read_at_the_rows_of_the_lane_alone() {
    let views = LaneViews::default();
    let file = File::of(sorted()).await;
    for index in 0..TENANTS {
        let view = file.view(&views, Some(&tenant(index))).await.unwrap();
        let start = (index * TENANT_ROWS) as i64;
        let own: BTreeSet<i64> = (start..start + TENANT_ROWS as i64).collect();
        assert!(view.exact);
        assert_eq!(file.ids(&view).await, own, "tenant {index}");
        let groups = view.metadata.num_row_groups();
        let straddles = index == 4 || index == 8;
        assert_eq!(groups, if straddles { 2 } else { 1 }, "tenant {index}");
    }
    let absent = file.view(&views, Some(&tenant(77))).await.unwrap();
    assert!(absent.exact && absent.is_empty());
    let shared = file.view(&views, None).await.unwrap();
    assert!(shared.exact && shared.is_empty());
}

#[tokio::test]
async fn rows_that_are_asked_for_again_are_kept() {
    let views = LaneViews::default();
    let file = File::of(sorted()).await;
    for index in [0, 4, TENANTS - 1] {
        let tenant = tenant(index);
        let first = file.view(&views, Some(&tenant)).await.unwrap();
        assert!(first.kept.is_none());
        let again = file.view(&views, Some(&tenant)).await.unwrap();
        assert!(again.kept.is_some() && again.exact);
        assert_eq!(file.ids(&again).await, file.ids(&first).await);
        let later = file.view(&views, Some(&tenant)).await.unwrap();
        assert!(Arc::ptr_eq(&again, &later));
    }
}

#[tokio::test]
async fn a_file_that_is_all_the_lanes_is_read_as_it_is() {
    let views = LaneViews::default();
    let file = File::of(vec![Some(tenant(1)); ROWS]).await;
    for _ in 0..3 {
        let view = file.view(&views, Some(&tenant(1))).await.unwrap();
        assert!(view.exact && view.kept.is_none());
        assert_eq!(file.ids(&view).await.len(), ROWS);
    }
}

#[tokio::test]
async fn shared_rows_among_those_of_tenants_are_in_every_view() {
    let views = LaneViews::default();
    let mut tenants = sorted();
    for row in (0..ROWS).step_by(500) {
        tenants[row] = None;
    }
    let file = File::of(tenants.clone()).await;
    let own = tenant(5);
    for asking in [Some(own.as_str()), None] {
        let view = file.view(&views, asking).await.unwrap();
        let expected: BTreeSet<i64> = tenants
            .iter()
            .enumerate()
            .filter(|(_, tenant)| tenant.is_none() || tenant.as_deref() == asking)
            .map(|(row, _)| row as i64)
            .collect();
        assert!(view.exact);
        assert_eq!(file.ids(&view).await, expected, "{asking:?}");
    }
}

#[tokio::test]
async fn mixed_tenants_are_left_to_the_reader() {
    let views = LaneViews::default();
    let tenants = (0..2 * DOUBTFUL_ROWS_MAX).map(|row| Some(tenant(row % TENANTS)));
    let file = File::of(tenants.collect()).await;
    let view = file.view(&views, Some(&tenant(5))).await.unwrap();
    assert!(!view.exact);
    let ids = file.ids(&view).await;
    assert!(ids.len() == 2 * DOUBTFUL_ROWS_MAX);
}

#[tokio::test]
async fn a_file_that_changed_has_another_view() {
    let views = LaneViews::default();
    let file = File::of(sorted()).await;
    let (first, last) = (tenant(0), tenant(TENANTS - 1));
    let view = file.view(&views, Some(&first)).await.unwrap();
    assert!(file.ids(&view).await.contains(&0));
    let mut turned = sorted();
    turned.reverse();
    // Kept or not, rows of the file that was there are not seen again.
    file.view(&views, Some(&first)).await.unwrap();
    let file = file.written(turned).await;
    let view = file.view(&views, Some(&first)).await.unwrap();
    assert!(!file.ids(&view).await.contains(&0));
    let view = file.view(&views, Some(&last)).await.unwrap();
    assert!(file.ids(&view).await.contains(&0));
}

#[tokio::test]
async fn a_file_that_cannot_be_read_has_no_view() {
    let views = LaneViews::default();
    let mut file = File::of(sorted()).await;
    std::fs::write(file.dir.path().join("rows.parquet"), b"PAR1 nothing PAR1").unwrap();
    file.meta = file.store.head(&file.meta.location).await.unwrap();
    assert!(file.view(&views, Some(&tenant(0))).await.is_none());
}
