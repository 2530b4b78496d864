//! A caller with defects: each passes by one more of the guards of stored
//! tables, and is stopped by the next. Nothing is written, and nothing read that
//! is another tenant's.

use arrow::array::{ArrayRef, Int32Array};
use futures::TryStreamExt;
use rusqlite::ErrorCode;

use super::*;
use crate::backend::{BackendError, Transaction};
use crate::catalog::{Relation, TENANT_COLUMN};
use crate::policy::LanePredicate;
use crate::source::LaneScan;
use crate::table::{TableScanExec, TableWriter, Wanted, scan_schema};
use crate::tenant::Lane;
use arrow::datatypes::DataType;

struct World {
    engine: Engine,
    alice: Scope,
    bob: Scope,
    relation: Arc<Relation>,
    _dir: TempDir,
}

impl World {
    /// A shared table with a row in each lane.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = JammiConfig {
            artifact_dir: dir.path().to_owned(),
            ..JammiConfig::default()
        };
        let engine = Engine::open(&config).await.unwrap();
        let shared = Scope::global(Principal::trusted_network());
        let (alice, bob) = (scope_of(ALICE), scope_of(BOB));
        run(&engine, &shared, "CREATE TABLE words (id INT)").await;
        for (scope, id) in [(&shared, 0), (&alice, 1), (&bob, 2)] {
            run(
                &engine,
                scope,
                &format!("INSERT INTO words (id) VALUES ({id})"),
            )
            .await;
        }
        let snapshot = engine.catalog().snapshot(&alice).await.unwrap();
        World {
            relation: Arc::clone(snapshot.relation("words").unwrap()),
            engine,
            alice,
            bob,
            _dir: dir,
        }
    }

    fn reads(&self, scope: &Scope) -> StatementReads {
        StatementReads::new(self.engine.backend(), scope)
    }

    /// A scan of the lanes of whoever it is asked for, without a guard.
    fn scan(&self, lanes: Vec<Lane>) -> Arc<dyn ExecutionPlan> {
        Arc::new(self.unguarded(lanes))
    }

    fn unguarded(&self, lanes: Vec<Lane>) -> TableScanExec {
        let definition = self.relation.table().unwrap();
        let tenant = definition.position(0).unwrap();
        TableScanExec::new(
            Arc::clone(&self.relation),
            definition,
            lanes,
            &[1 - tenant, tenant],
            Wanted::default(),
            self.engine.0.chunks.clone(),
        )
    }

    async fn ids(&self, plan: Arc<dyn ExecutionPlan>) -> Result<Vec<i32>, String> {
        let context = self.engine.0.planner.session().task_ctx();
        let batches = collect(plan, context).await.map_err(|e| e.to_string())?;
        let ids = batches.iter().flat_map(|batch| {
            let ids = batch
                .column(0)
                .as_primitive::<arrow::datatypes::Int32Type>();
            ids.values().to_vec()
        });
        let mut ids: Vec<i32> = ids.collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Rows of `tenants`, in the order of the table's columns.
    fn rows(&self, tenants: &[Option<&str>]) -> RecordBatch {
        let definition = self.relation.table().unwrap();
        let ids: ArrayRef = Arc::new(Int32Array::from(vec![9; tenants.len()]));
        let tenants: ArrayRef = Arc::new(StringArray::from(tenants.to_vec()));
        let columns = match definition.position(0) {
            Some(0) => vec![tenants, ids],
            _ => vec![ids, tenants],
        };
        RecordBatch::try_new(definition.schema(), columns).unwrap()
    }

    /// What `work` fails with in a transaction of Alice's lane.
    async fn stopped(
        &self,
        work: impl FnOnce(&Transaction<'_>, &Relation) -> Result<(), BackendError> + Send + 'static,
    ) -> BackendError {
        let relation = Arc::clone(&self.relation);
        let lane = self.alice.writable();
        let backend = self.engine.backend();
        let stopped = backend.write(lane, move |lane| work(lane, &relation)).await;
        self.assert_untouched().await;
        stopped.unwrap_err()
    }

    /// Everybody has what he had.
    async fn assert_untouched(&self) {
        for (scope, expected) in [(&self.alice, [0, 1]), (&self.bob, [0, 2])] {
            let plan = unruled(&self.engine, scope, "SELECT id FROM words").await;
            let plan = physical(&self.engine, plan).await;
            guard::attach(&plan, &self.reads(scope));
            assert_eq!(self.ids(plan).await.unwrap(), expected);
        }
    }
}

async fn run(engine: &Engine, scope: &Scope, sql: &str) {
    let names = NameDefaults::default();
    let statement = engine.prepare(scope, &names, sql).await.unwrap();
    let answer = engine.execute(scope, &statement, &[]).await.unwrap();
    answer.try_collect::<Vec<_>>().await.unwrap();
}

/// The name of the SQLite table.
fn stored(lane: &Transaction<'_>) -> String {
    lane.connection()
        .query_row(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 'g[0-9]*'",
            [],
            |row| row.get(0),
        )
        .unwrap()
}

/// The rule is passed by in [`World::assert_untouched`], of which the guard lets
/// out what is the scope's. This passes by what binds a scan to the scope too.
#[tokio::test]
async fn a_read_is_stopped_by_the_guard_then_by_the_reads_then_by_the_proof() {
    let world = World::new().await;
    world.assert_untouched().await;
    let everybodys = vec![world.alice.writable(), world.bob.writable(), Lane::Global];

    // A scan of every lane, with the state of every lane at hand: the guard.
    let scan = world.unguarded(everybodys.clone());
    let scan_of = |lanes| world.unguarded(lanes);
    let own = [
        (
            world.alice.clone(),
            vec![world.alice.writable(), Lane::Global],
            vec![0, 1],
        ),
        (
            world.alice.clone(),
            vec![world.bob.writable(), Lane::Global],
            vec![0],
        ),
    ];
    for (guarded_for, lanes, expected) in own {
        let reader = match lanes.contains(&world.bob.writable()) {
            true => &world.bob,
            false => &world.alice,
        };
        let predicate = LanePredicate::new(&guarded_for, &DataType::Utf8).unwrap();
        let definition = world.relation.table().unwrap();
        let id = definition.schema().fields()[1 - definition.position(0).unwrap()].clone();
        let guard = GuardExec::new(
            guarded_for,
            "words".into(),
            LaneScan {
                plan: Arc::new(scan_of(lanes)),
                lane: Some((1, predicate)),
                output: Arc::new(Schema::new(vec![id])),
            },
        );
        let plan: Arc<dyn ExecutionPlan> = Arc::new(guard);
        guard::attach(&plan, &world.reads(reader));
        assert_eq!(world.ids(plan).await.unwrap(), expected);
    }

    // No guard, and Alice's state of the lanes: Bob's is not among them.
    scan.attach(&world.reads(&world.alice));
    let stopped = world.ids(Arc::new(scan)).await.unwrap_err();
    assert!(
        stopped.contains("a lane that is not the caller's"),
        "{stopped}"
    );
    assert!(!stopped.contains(BOB), "{stopped}");

    // Neither: no such plan is run.
    let naked = world.scan(everybodys);
    assert!(verify::verify(&naked, &world.alice).is_err());
    assert_eq!(
        scan_schema(world.relation.table().unwrap()).fields().len(),
        3
    );
    assert_eq!(naked.schema().field(1).name(), TENANT_COLUMN);
}

/// The statement's own checks are passed by: rows come to the writer as they are.
#[tokio::test]
async fn a_write_of_another_tenants_row_is_stopped_by_the_assertion() {
    let world = World::new().await;
    for tenants in [
        &[Some(BOB)][..],
        &[None],
        &[Some("nonsense")],
        &[Some(ALICE), Some(ALICE), Some(BOB)],
    ] {
        let rows = world.rows(tenants);
        let stopped = world.stopped(move |lane, relation| {
            let mut writer = TableWriter::open(lane, relation, relation.table().unwrap())?;
            writer.insert(&rows)?;
            writer.finish().map(drop)
        });
        let stopped = stopped.await;
        assert!(
            matches!(stopped, BackendError::TenantMismatch { lane } if lane == world.alice.writable()),
            "{tenants:?}: {stopped:?}"
        );
        assert!(!stopped.to_string().contains(BOB), "{stopped}");

        // An update whose new rows are another's, and whose old rows are hers.
        let rows = world.rows(tenants);
        let stopped = world.stopped(move |lane, relation| {
            let mut writer = TableWriter::open(lane, relation, relation.table().unwrap())?;
            let numbers: Vec<i64> = (0..rows.num_rows() as i64).collect();
            writer.update(&numbers, &[rows])?;
            writer.finish().map(drop)
        });
        let stopped = stopped.await;
        assert!(
            matches!(stopped, BackendError::TenantMismatch { .. }),
            "{tenants:?}: {stopped:?}"
        );
    }
}

/// Old rows are compared too: a number that is not of a row of hers.
#[tokio::test]
async fn a_write_over_a_row_that_the_lane_does_not_have_is_stopped() {
    let world = World::new().await;
    // A row of Bob's that got into Alice's file somehow.
    let planted = world
        .engine
        .backend()
        .write(world.alice.writable(), |lane| {
            let stored = stored(lane);
            lane.connection()
                .execute_batch("PRAGMA ignore_check_constraints = ON")?;
            let bob: TenantId = BOB.parse().unwrap();
            lane.connection().execute(
                &format!("INSERT INTO {stored} (_row, tenant_id) VALUES (5, ?1)"),
                [&bob.as_bytes()[..]],
            )?;
            lane.connection()
                .execute_batch("PRAGMA ignore_check_constraints = OFF")?;
            Ok(())
        });
    planted.await.unwrap();
    for number in [5, 77] {
        let stopped = world.stopped(move |lane, relation| {
            let mut writer = TableWriter::open(lane, relation, relation.table().unwrap())?;
            writer.delete(&[0, number])?;
            writer.finish().map(drop)
        });
        let stopped = stopped.await;
        assert!(
            matches!(stopped, BackendError::TenantMismatch { .. }),
            "{number}: {stopped:?}"
        );
        let stopped = world.stopped(move |lane, relation| {
            let writer = TableWriter::open(lane, relation, relation.table().unwrap())?;
            writer.rows(&[number]).map(drop)
        });
        let stopped = stopped.await;
        assert!(
            matches!(stopped, BackendError::TenantMismatch { .. }),
            "{number}: {stopped:?}"
        );
    }
}

/// The writer and its assertion are passed by: SQLite holds each row to the lane.
#[tokio::test]
async fn a_statement_that_asserts_nothing_is_stopped_by_the_check() {
    let world = World::new().await;
    let (alice, bob) = (world.alice.tenant().unwrap(), world.bob.tenant().unwrap());
    let values: [(&str, rusqlite::types::Value); 4] = [
        ("another tenant", bob.as_bytes().to_vec().into()),
        ("nobody", rusqlite::types::Value::Null),
        ("her name as text", alice.to_string().into()),
        ("her name cut off", alice.as_bytes()[..15].to_vec().into()),
    ];
    for (what, value) in values {
        for change in [
            "INSERT INTO {stored} (_row, tenant_id) VALUES (9, ?1)",
            "UPDATE {stored} SET tenant_id = ?1",
        ] {
            let value = value.clone();
            let stopped = world.stopped(move |lane, _relation| {
                let sql = change.replace("{stored}", &stored(lane));
                lane.connection().execute(&sql, [value])?;
                Ok(())
            });
            let BackendError::Storage { source, .. } = stopped.await else {
                panic!("{what}: {change}");
            };
            let error: &rusqlite::Error = source.downcast_ref().unwrap();
            assert_eq!(
                error.sqlite_error_code(),
                Some(ErrorCode::ConstraintViolation)
            );
            assert!(error.to_string().contains("CHECK"), "{error}");
        }
    }
    // The lane that is shared holds nobody's rows alone.
    let global = world.engine.backend().write(Lane::Global, move |lane| {
        lane.connection().execute(
            "INSERT INTO t1 (_row, tenant_id) VALUES (9, ?1)",
            [&alice.as_bytes()[..]],
        )?;
        Ok(())
    });
    assert!(global.await.is_err());
    world.assert_untouched().await;
}
