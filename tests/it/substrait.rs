//! Plans of Substrait: what is true of a statement of SQL is true of a plan.
//!
//! Plans are made by DataFusion's producer, as a client does that knows the columns
//! of the tables it may read and has none of their rows.

use std::fs;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use arrow::util::pretty::pretty_format_batches;
use arrow_flight::sql::{
    ActionCreatePreparedStatementResult, ActionCreatePreparedSubstraitPlanRequest, Any,
    CommandGetSqlInfo, CommandStatementSubstraitPlan, ProstMessageExt, SqlInfo, SubstraitPlan,
};
use bytes::Bytes;
use datafusion::catalog::{
    CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider,
};
use datafusion::common::TableReference;
use datafusion::datasource::empty::EmptyTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_substrait::logical_plan::producer::to_substrait_plan;
use datafusion_substrait::substrait::proto::expression::field_reference::{
    OuterReference, ReferenceType, RootType,
};
use datafusion_substrait::substrait::proto::expression::literal::LiteralType;
use datafusion_substrait::substrait::proto::expression::mask_expression::{
    StructItem, StructSelect,
};
use datafusion_substrait::substrait::proto::expression::reference_segment::{self, StructField};
use datafusion_substrait::substrait::proto::expression::subquery::SubqueryType;
use datafusion_substrait::substrait::proto::expression::{
    FieldReference, Literal, MaskExpression, ReferenceSegment, RexType,
};
use datafusion_substrait::substrait::proto::extensions::AdvancedExtension;
use datafusion_substrait::substrait::proto::fetch_rel::{CountMode, OffsetMode};
use datafusion_substrait::substrait::proto::function_argument::ArgType;
use datafusion_substrait::substrait::proto::read_rel::{
    ExtensionTable, IcebergTable, LocalFiles, NamedTable, ReadType,
};
use datafusion_substrait::substrait::proto::rel::RelType;
use datafusion_substrait::substrait::proto::rel_common::{Emit, EmitKind};
use datafusion_substrait::substrait::proto::{
    Expression, FetchRel, FilterRel, FunctionOption, NamedStruct, Plan, PlanRel, ProjectRel,
    ReadRel, Rel, RelCommon, RelRoot, SetRel, plan_rel,
};
use datafusion_substrait::substrait::version::version;
use jammi_db::server::proto::catalog::{RegisterSourceRequest, SourceFormat};
use prost::Message;
use tonic::{Code, Status};

use crate::client::{ALICE, BOB, Client, prepared, statement};
use crate::harness::{TestServer, in_session};
use crate::writes::{numbers, refused, shown};

const CANARY: &str = "canary-9c41";

/// Makes plans.
struct Producer(SessionContext);

impl Producer {
    /// One that knows the columns of `tables`, as `client` sees them.
    async fn of(client: &mut Client, tables: &[&str]) -> Producer {
        let config = SessionConfig::new().with_default_catalog_and_schema("mutable", "public");
        let producer = Producer(SessionContext::new_with_config(config));
        for table in tables {
            let sql = format!("SELECT * FROM {table}");
            let schema = client.schema(&statement(&sql)).await.unwrap();
            producer.add(table, &schema);
        }
        producer
    }

    fn add(&self, table: &str, schema: &Schema) {
        let plain = |field: &Arc<Field>| field.as_ref().clone().with_metadata(Default::default());
        let schema = Schema::new(schema.fields().iter().map(plain).collect::<Vec<_>>());
        let name = TableReference::parse_str(table).resolve("mutable", "public");
        let catalog = self.0.catalog(&name.catalog).unwrap_or_else(|| {
            let made: Arc<dyn CatalogProvider> = Arc::new(MemoryCatalogProvider::new());
            self.0
                .register_catalog(name.catalog.as_ref(), Arc::clone(&made));
            made
        });
        let provider = catalog.schema(&name.schema).unwrap_or_else(|| {
            let made: Arc<dyn SchemaProvider> = Arc::new(MemorySchemaProvider::new());
            catalog
                .register_schema(&name.schema, Arc::clone(&made))
                .unwrap();
            made
        });
        let empty = Arc::new(EmptyTable::new(Arc::new(schema)));
        provider
            .register_table(name.table.to_string(), empty)
            .unwrap();
    }

    async fn plan(&self, sql: &str) -> Plan {
        let state = self.0.state();
        let plan = state.create_logical_plan(sql).await.unwrap();
        *to_substrait_plan(&plan, &state).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }
}

fn command(plan: &Plan) -> CommandStatementSubstraitPlan {
    bytes_of(plan.encode_to_vec(), "")
}

fn bytes_of(plan: impl Into<Bytes>, version: &str) -> CommandStatementSubstraitPlan {
    CommandStatementSubstraitPlan {
        plan: Some(SubstraitPlan {
            plan: plan.into(),
            version: version.into(),
        }),
        transaction_id: None,
    }
}

/// A plan of one relation.
fn plan_of(rel_type: RelType) -> Plan {
    let rel = Rel {
        rel_type: Some(rel_type),
    };
    Plan {
        version: Some(version()),
        relations: vec![PlanRel {
            rel_type: Some(plan_rel::RelType::Rel(rel)),
        }],
        ..Plan::default()
    }
}

/// The root of a plan that was produced, to be changed.
fn root(plan: &mut Plan) -> &mut RelRoot {
    match plan.relations[0].rel_type.as_mut() {
        Some(plan_rel::RelType::Root(root)) => root,
        other => panic!("{other:?}"),
    }
}

fn text(answer: Result<arrow::array::RecordBatch, Status>) -> String {
    match answer {
        Ok(batch) => pretty_format_batches(&[batch]).unwrap().to_string(),
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

impl Client {
    async fn prepare_plan(
        &mut self,
        plan: &Plan,
    ) -> Result<ActionCreatePreparedStatementResult, Status> {
        let request = ActionCreatePreparedSubstraitPlanRequest {
            plan: command(plan).plan,
            transaction_id: None,
        };
        let body = request.as_any().encode_to_vec();
        let results = self.act("CreatePreparedSubstraitPlan", body).await?;
        let any = Any::decode(&*results[0]).unwrap();
        Ok(any.unpack().unwrap().unwrap())
    }
}

/// A server on which Alice and Bob each have a table `t`, a source and a view of
/// their own by one name, and read a shared source of rows of both.
async fn world() -> (TestServer, Client, Client) {
    let server = TestServer::start().await;
    let mut alice = Client::connect(&server, Some("alice")).await;
    let mut bob = Client::connect(&server, Some("bob")).await;
    alice.bind(ALICE).await;
    bob.bind(BOB).await;
    let mut catalog = server.catalog().await;
    let path = server.dir().join("shared.csv");
    let rows = [
        format!("1,{ALICE},10,own"),
        format!("2,{ALICE},20,own too"),
        "3,,30,shared".to_owned(),
        format!("4,{BOB},777,{CANARY}"),
    ];
    let rows = format!("id,tenant_id,secret,word\n{}\n", rows.join("\n"));
    fs::write(&path, rows).unwrap();
    let register = |name: &str, path: &std::path::Path| RegisterSourceRequest {
        name: name.into(),
        location: path.to_str().unwrap().into(),
        format: SourceFormat::Unspecified.into(),
        tenant_column: None,
    };
    let mut shared = in_session("operator", register("notes", &path));
    shared.metadata_mut().remove("jammi-session-id");
    catalog.register_source(shared).await.unwrap();
    for (session, client, word) in [("alice", &mut alice, "own"), ("bob", &mut bob, CANARY)] {
        for sql in [
            "CREATE TABLE t (id BIGINT PRIMARY KEY, word VARCHAR, amount DECIMAL(10, 2))".into(),
            format!("INSERT INTO t VALUES (1, '{word}', 1.50), (2, '{word} too', NULL)"),
            "CREATE VIEW v AS SELECT id, word FROM t WHERE id > 1".into(),
            format!("CREATE TABLE {session}s (id BIGINT, word VARCHAR)"),
        ] {
            let sql: String = sql;
            client.query(&sql).await.unwrap();
        }
        let path = server.dir().join(format!("{session}.csv"));
        fs::write(&path, format!("id,word\n1,{word}\n")).unwrap();
        for name in ["inbox", &format!("{session}box")] {
            let request = in_session(session, register(name, &path));
            catalog.register_source(request).await.unwrap();
        }
    }
    (server, alice, bob)
}

const TABLES: [&str; 6] = [
    "t",
    "v",
    "notes.public.notes",
    "inbox.public.inbox",
    "jammi.catalog.sources",
    "information_schema.tables",
];

#[tokio::test]
async fn a_plan_answers_what_its_statement_does() {
    let (server, mut alice, mut bob) = world().await;
    for (client, tenant) in [(&mut alice, ALICE), (&mut bob, BOB)] {
        let producer = Producer::of(client, &TABLES).await;
        for sql in [
            "SELECT * FROM t ORDER BY id",
            "SELECT * FROM public.t ORDER BY id",
            "SELECT * FROM mutable.public.t ORDER BY id",
            "SELECT word, id FROM v",
            "SELECT * FROM notes.public.notes ORDER BY id",
            "SELECT * FROM inbox.public.inbox",
            "SELECT name FROM jammi.catalog.sources ORDER BY name",
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' \
             ORDER BY table_name",
            "SELECT id FROM notes.public.notes WHERE 1 / (secret - 777) <= 0 ORDER BY id",
            "SELECT id FROM notes.public.notes WHERE tenant_id = '018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b' \
             OR true ORDER BY id",
            "SELECT count(*) AS n, sum(secret) AS s, min(word) AS w FROM notes.public.notes",
            "SELECT word, count(*) AS n FROM t GROUP BY word HAVING count(*) > 0 ORDER BY word",
            "SELECT a.id, b.word FROM t AS a JOIN t AS b ON a.id = b.id ORDER BY a.id",
            "SELECT t.id, n.word FROM t LEFT JOIN notes.public.notes AS n ON n.id = t.id + 1 \
             ORDER BY t.id",
            "SELECT t.id FROM t, inbox.public.inbox AS i WHERE t.id >= i.id ORDER BY t.id",
            "SELECT id FROM t WHERE id IN (SELECT id FROM notes.public.notes) ORDER BY id",
            "SELECT id FROM t WHERE EXISTS (SELECT 1 FROM v WHERE v.id > 1) ORDER BY id",
            "SELECT id FROM t WHERE id > ALL (SELECT id FROM v WHERE id < 2) ORDER BY id",
            "SELECT id, (SELECT max(id) FROM notes.public.notes) AS most FROM t ORDER BY id",
            "SELECT id FROM t UNION ALL SELECT id FROM notes.public.notes ORDER BY id",
            "SELECT id FROM notes.public.notes EXCEPT SELECT id FROM t ORDER BY id",
            "SELECT id FROM notes.public.notes INTERSECT SELECT id FROM t ORDER BY id",
            "SELECT DISTINCT id > 0 AS positive FROM notes.public.notes",
            "SELECT id, row_number() OVER (ORDER BY id DESC) AS n FROM t ORDER BY id",
            "SELECT id FROM t ORDER BY id DESC LIMIT 1 OFFSET 1",
            "SELECT CASE WHEN id = 1 THEN word ELSE upper(word) END AS x FROM t ORDER BY id",
            "SELECT amount + 1 AS more FROM t WHERE amount IS NOT NULL",
            "SELECT id FROM t WHERE word LIKE '%too' AND id IN (1, 2, 3)",
            "SELECT CAST(id AS VARCHAR) || word AS x FROM t ORDER BY id",
            "SELECT id AS a, id AS b FROM t ORDER BY id",
            "VALUES (1, 'a'), (2, NULL)",
            "SELECT 1 AS one, 'x' AS x",
        ] {
            let plan = producer.plan(sql).await;
            let (of_plan, of_text) = (client.rows(&command(&plan)).await, client.query(sql).await);
            let (of_plan, of_text) = (text(of_plan), text(of_text));
            let rows = |text: &str| text.lines().skip(3).map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(rows(&of_plan), rows(&of_text), "{sql}: {of_plan} {of_text}");
            // The row that cannot be divided by is Bob's.
            let fails = tenant == BOB && sql.contains("777");
            assert_eq!(!of_plan.starts_with('+'), fails, "{sql}: {of_plan}");
            assert!(
                tenant == BOB || !of_plan.contains(CANARY),
                "{sql}: {of_plan}"
            );
        }
    }
    // Each of them had the rows of the other among the tables by those names.
    let plan = Producer::of(&mut bob, &TABLES).await;
    let plan = plan.plan("SELECT word FROM notes.public.notes").await;
    let (hers, his) = (
        alice.rows(&command(&plan)).await.unwrap(),
        bob.rows(&command(&plan)).await.unwrap(),
    );
    assert!(!format!("{hers:?}").contains(CANARY));
    assert!(format!("{his:?}").contains(CANARY));
    server.stop().await;
}

/// Gives the read of `Project(Filter(Read))` the filter, and a mask of its columns.
fn pushed_down(mut plan: Plan) -> Plan {
    let on_top = root(&mut plan).input.as_mut().unwrap();
    let Some(RelType::Project(project)) = on_top.rel_type.as_mut() else {
        panic!("a projection is on top");
    };
    let input = project.input.take().unwrap();
    let Some(RelType::Filter(filter)) = input.rel_type else {
        panic!("a filter is below");
    };
    let mut read = *filter.input.unwrap();
    let Some(RelType::Read(inner)) = read.rel_type.as_mut() else {
        panic!("a read is below that");
    };
    inner.filter = filter.condition;
    let columns = inner.base_schema.as_ref().unwrap().names.len();
    let item = |field: usize| StructItem {
        field: field.try_into().unwrap(),
        child: None,
    };
    inner.projection = Some(MaskExpression {
        select: Some(StructSelect {
            struct_items: (0..columns).map(item).collect(),
        }),
        maintain_singular_struct: false,
    });
    project.input = Some(Box::new(read));
    plan
}

/// Symptom: rows that a read's own filter leaves out are answered, since a table takes
/// a filter for a hint; a view is not read at all.
#[tokio::test]
async fn a_read_s_own_filter_leaves_rows_out() {
    let (server, mut alice, mut bob) = world().await;
    let producer = Producer::of(&mut alice, &TABLES).await;
    for (sql, hers) in [
        ("SELECT id FROM t WHERE id > 1", "2"),
        ("SELECT word FROM t WHERE word LIKE '%own too'", "own too"),
        ("SELECT id FROM v WHERE id < 2", ""),
        ("SELECT id FROM v WHERE id < 3", "2"),
        (
            "SELECT id FROM notes.public.notes WHERE id > 1 AND secret > 0",
            "2 3",
        ),
        (
            "SELECT id FROM notes.public.notes WHERE 1 / (secret - 777) <= 0 AND id <> 2",
            "1 3",
        ),
        (
            "SELECT id FROM notes.public.notes WHERE tenant_id \
             = '018f5a0e-c4c8-7e10-9c4f-3b6f7c5a8e9b' OR id = 1",
            "1",
        ),
        (
            "SELECT table_name FROM information_schema.tables WHERE table_name LIKE '%bobs%'",
            "",
        ),
        (
            "SELECT column1 FROM (VALUES (1), (2), (3)) WHERE column1 > 1",
            "2 3",
        ),
    ] {
        let plan = pushed_down(producer.plan(sql).await);
        let answer = alice.rows(&command(&plan)).await;
        assert_eq!(shown(&answer.unwrap()), hers, "{sql}");
    }
    let plan = producer
        .plan("SELECT id FROM notes.public.notes WHERE word <> 'shared'")
        .await;
    let his = bob.rows(&command(&pushed_down(plan))).await.unwrap();
    assert_eq!(shown(&his), "4");
    server.stop().await;
}

/// A subquery that reads a column of the query around it, which DataFusion's producer
/// makes no plans of.
#[tokio::test]
async fn a_subquery_of_a_plan_may_be_correlated() {
    let (server, mut alice, _bob) = world().await;
    let producer = Producer::of(&mut alice, &["t", "v"]).await;
    let sql = "SELECT id FROM t WHERE EXISTS (SELECT 1 FROM v WHERE v.id = {})";
    for (steps_out, field, answer) in [(1, 0, Ok("2")), (1, 9, Err(())), (2, 0, Err(()))] {
        let mut plan = producer.plan(&sql.replace("{}", "1000")).await;
        let outer = FieldReference {
            reference_type: Some(ReferenceType::DirectReference(ReferenceSegment {
                reference_type: Some(reference_segment::ReferenceType::StructField(Box::new(
                    StructField { field, child: None },
                ))),
            })),
            root_type: Some(RootType::OuterReference(OuterReference { steps_out })),
        };
        let outer = RexType::Selection(Box::new(outer));
        assert!(put_for_number(
            root(&mut plan).input.as_mut().unwrap(),
            &outer
        ));
        let rows = alice.rows(&command(&plan)).await;
        match answer {
            Ok(ids) => assert_eq!(shown(&rows.unwrap()), ids),
            Err(()) => refused(rows, Code::InvalidArgument, ""),
        }
    }
    assert_eq!(
        shown(&alice.query(&sql.replace("{}", "t.id")).await.unwrap()),
        "2"
    );
    server.stop().await;
}

/// Puts `rex` for the number 1000 in the condition of the innermost filter.
fn put_for_number(rel: &mut Rel, rex: &RexType) -> bool {
    let condition = match rel.rel_type.as_mut().unwrap() {
        RelType::Project(project) => return put_for_number(project.input.as_mut().unwrap(), rex),
        RelType::Filter(filter) => filter.condition.as_mut().unwrap(),
        other => panic!("{other:?}"),
    };
    match condition.rex_type.as_mut().unwrap() {
        RexType::Subquery(subquery) => match subquery.subquery_type.as_mut().unwrap() {
            SubqueryType::SetPredicate(exists) => {
                put_for_number(exists.tuples.as_mut().unwrap(), rex)
            }
            other => panic!("{other:?}"),
        },
        RexType::ScalarFunction(call) => call.arguments.iter_mut().any(|argument| {
            let Some(ArgType::Value(value)) = argument.arg_type.as_mut() else {
                return false;
            };
            let is_number = matches!(
                &value.rex_type,
                Some(RexType::Literal(Literal {
                    literal_type: Some(LiteralType::I64(1000)),
                    ..
                }))
            );
            if is_number {
                value.rex_type = Some(rex.clone());
            }
            is_number
        }),
        other => panic!("{other:?}"),
    }
}

/// What Bob has is what nobody has, in the words that are for a statement.
#[tokio::test]
async fn a_plan_meets_each_lane_as_a_statement_does() {
    let (server, mut alice, mut bob) = world().await;
    let his = Producer::of(&mut bob, &["bobs", "bobbox.public.bobbox"]).await;
    let schema = bob.schema(&statement("SELECT * FROM bobs")).await.unwrap();
    for missing in ["nobodys", "nobodybox.public.nobodybox"] {
        his.add(missing, &schema);
    }
    for (foreign, missing) in [
        ("bobs", "nobodys"),
        ("public.bobs", "public.nobodys"),
        ("mutable.public.bobs", "mutable.public.nobodys"),
        ("bobbox.public.bobbox", "nobodybox.public.nobodybox"),
    ] {
        for sql in [
            "SELECT * FROM {t}",
            "SELECT (SELECT count(*) FROM {t}) AS n",
            "SELECT 1 AS one WHERE EXISTS (SELECT 1 FROM {t})",
        ] {
            let of_foreign = sql.replace("{t}", foreign);
            let of_missing = sql.replace("{t}", missing);
            assert!(
                bob.rows(&command(&his.plan(&of_foreign).await))
                    .await
                    .is_ok()
            );
            let plan = alice.rows(&command(&his.plan(&of_foreign).await)).await;
            let text = alice.query(&of_foreign).await;
            let never = alice.rows(&command(&his.plan(&of_missing).await)).await;
            let (plan, text, never) = (plan.unwrap_err(), text.unwrap_err(), never.unwrap_err());
            assert_eq!(plan.code(), Code::NotFound, "{plan:?}");
            assert_eq!(plan.message(), text.message());
            let alike = never
                .message()
                .replace("nobodys", "bobs")
                .replace("nobodybox", "bobbox");
            assert_eq!(plan.message(), alike);
        }
    }
    // Names are as they are written, as in double quotes.
    his.add("\"T\"", &schema);
    let plan = his.plan("SELECT * FROM \"T\"").await;
    refused(
        alice.rows(&command(&plan)).await,
        Code::NotFound,
        "does not exist",
    );
    // A caller without a binding reads what is shared.
    let mut nobody = Client::connect(&server, None).await;
    let producer = Producer::of(&mut nobody, &["notes.public.notes"]).await;
    let plan = producer.plan("SELECT id FROM notes.public.notes").await;
    let rows = nobody.rows(&command(&plan)).await.unwrap();
    assert_eq!(shown(&rows), "3");
    server.stop().await;
}

/// What becomes of a relation of each kind that Substrait knows. A kind that a newer
/// Substrait adds does not compile before it has a case.
fn is_served(rel: &RelType) -> bool {
    match rel {
        RelType::Read(_)
        | RelType::Filter(_)
        | RelType::Fetch(_)
        | RelType::Aggregate(_)
        | RelType::Sort(_)
        | RelType::Join(_)
        | RelType::Project(_)
        | RelType::Set(_)
        | RelType::Cross(_) => true,
        RelType::ExtensionSingle(_)
        | RelType::ExtensionMulti(_)
        | RelType::ExtensionLeaf(_)
        | RelType::Reference(_)
        | RelType::Write(_)
        | RelType::Ddl(_)
        | RelType::Update(_)
        | RelType::HashJoin(_)
        | RelType::MergeJoin(_)
        | RelType::NestedLoopJoin(_)
        | RelType::Window(_)
        | RelType::Exchange(_)
        | RelType::Expand(_) => false,
    }
}

/// As [`is_served`], of expressions.
#[expect(deprecated, reason = "every kind is sent")]
fn is_served_expression(expression: &RexType) -> bool {
    match expression {
        RexType::Literal(_)
        | RexType::Selection(_)
        | RexType::ScalarFunction(_)
        | RexType::WindowFunction(_)
        | RexType::IfThen(_)
        | RexType::SingularOrList(_)
        | RexType::Cast(_)
        | RexType::Subquery(_)
        | RexType::DynamicParameter(_) => true,
        RexType::Nested(_)
        | RexType::SwitchExpression(_)
        | RexType::MultiOrList(_)
        | RexType::Lambda(_)
        | RexType::LambdaInvocation(_)
        | RexType::Enum(_) => false,
    }
}

/// Every kind is either served or refused by its name, and one that lacks its parts is
/// told so: nothing is passed over, and nothing panics.
#[tokio::test]
#[expect(deprecated, reason = "every kind is sent")]
async fn each_kind_of_relation_and_expression_has_its_answer() {
    let (server, mut alice, _bob) = world().await;
    let before = panics(&server).await;
    for rel in [
        RelType::Read(Default::default()),
        RelType::Filter(Default::default()),
        RelType::Fetch(Default::default()),
        RelType::Aggregate(Default::default()),
        RelType::Sort(Default::default()),
        RelType::Join(Default::default()),
        RelType::Project(Default::default()),
        RelType::Set(Default::default()),
        RelType::Cross(Default::default()),
        RelType::ExtensionSingle(Default::default()),
        RelType::ExtensionMulti(Default::default()),
        RelType::ExtensionLeaf(Default::default()),
        RelType::Reference(Default::default()),
        RelType::Write(Default::default()),
        RelType::Ddl(Default::default()),
        RelType::Update(Default::default()),
        RelType::HashJoin(Default::default()),
        RelType::MergeJoin(Default::default()),
        RelType::NestedLoopJoin(Default::default()),
        RelType::Window(Default::default()),
        RelType::Exchange(Default::default()),
        RelType::Expand(Default::default()),
    ] {
        let served = is_served(&rel);
        let what = format!("{rel:?}");
        let status = alice.rows(&command(&plan_of(rel))).await.unwrap_err();
        let (code, says) = match served {
            true => (Code::InvalidArgument, ""),
            false => (Code::Unimplemented, "is not served in plans of Substrait: "),
        };
        assert_eq!(status.code(), code, "{what}: {status:?}");
        assert!(status.message().contains(says), "{what}: {status:?}");
    }
    let producer = Producer::of(&mut alice, &["t"]).await;
    let plain = producer.plan("SELECT id FROM t").await;
    for rex in [
        RexType::Literal(Default::default()),
        RexType::Selection(Default::default()),
        RexType::ScalarFunction(Default::default()),
        RexType::WindowFunction(Default::default()),
        RexType::IfThen(Default::default()),
        RexType::SwitchExpression(Default::default()),
        RexType::SingularOrList(Default::default()),
        RexType::MultiOrList(Default::default()),
        RexType::Cast(Default::default()),
        RexType::Subquery(Default::default()),
        RexType::Nested(Default::default()),
        RexType::DynamicParameter(Default::default()),
        RexType::Lambda(Default::default()),
        RexType::LambdaInvocation(Default::default()),
        RexType::Enum(Default::default()),
    ] {
        let served = is_served_expression(&rex);
        let what = format!("{rex:?}");
        let mut plan = plain.clone();
        let input = root(&mut plan).input.take().unwrap();
        root(&mut plan).input = Some(filtered(input, rex));
        let status = alice.rows(&command(&plan)).await.unwrap_err();
        let known = match served {
            // Some of what is left to DataFusion it tells as not implemented.
            true => [Code::InvalidArgument, Code::Unimplemented].contains(&status.code()),
            false => {
                status.code() == Code::Unimplemented
                    && status
                        .message()
                        .contains("is not served in plans of Substrait: ")
            }
        };
        assert!(known, "{what}: {status:?}");
    }
    assert_eq!(panics(&server).await, before);
    server.stop().await;
}

fn filtered(input: Rel, condition: RexType) -> Rel {
    Rel {
        rel_type: Some(RelType::Filter(Box::new(FilterRel {
            input: Some(Box::new(input)),
            condition: Some(Box::new(Expression {
                rex_type: Some(condition),
            })),
            ..FilterRel::default()
        }))),
    }
}

/// The line of the metrics that counts requests which were ended by a panic.
async fn panics(server: &TestServer) -> String {
    let (_, metrics) = server.page("/metrics").await;
    let line = metrics
        .lines()
        .find(|line| line.starts_with("jammi_panics_total"));
    line.unwrap_or_default().to_owned()
}

fn read_of(read_type: ReadType) -> RelType {
    RelType::Read(Box::new(ReadRel {
        base_schema: Some(NamedStruct {
            r#struct: Some(Default::default()),
            ..NamedStruct::default()
        }),
        read_type: Some(read_type),
        ..ReadRel::default()
    }))
}

/// What DataFusion's consumer would read, run or pass over.
#[tokio::test]
#[expect(deprecated, reason = "limits of releases that are served")]
async fn what_a_plan_may_not_do_is_refused_by_name() {
    let (server, mut alice, _bob) = world().await;
    let before = panics(&server).await;
    let producer = Producer::of(&mut alice, &["t"]).await;
    let mut cases: Vec<(Plan, Code, &str)> = vec![
        (
            plan_of(read_of(ReadType::LocalFiles(LocalFiles::default()))),
            Code::Unimplemented,
            "register a source",
        ),
        (
            plan_of(read_of(ReadType::IcebergTable(IcebergTable::default()))),
            Code::Unimplemented,
            "register its files",
        ),
        (
            plan_of(read_of(ReadType::ExtensionTable(ExtensionTable::default()))),
            Code::Unimplemented,
            "ExtensionTable",
        ),
        (
            plan_of(read_of(ReadType::NamedTable(NamedTable {
                names: ["a", "b", "c", "d"].map(str::to_owned).into(),
                ..NamedTable::default()
            }))),
            Code::InvalidArgument,
            "a name of 4 parts",
        ),
        (
            plan_of(RelType::Set(SetRel::default())),
            Code::InvalidArgument,
            "at least two inputs",
        ),
    ];
    let mut sorted = producer.plan("SELECT id FROM t ORDER BY id").await;
    let Some(RelType::Sort(sort)) = &mut root(&mut sorted).input.as_mut().unwrap().rel_type else {
        panic!("a sort is on top");
    };
    sort.sorts[0].sort_kind = None;
    cases.push((sorted, Code::Unimplemented, "a sort without a direction"));
    let read = producer.plan("SELECT id FROM t").await;
    for (offset_mode, count_mode) in [
        (None, Some(CountMode::Count(-2))),
        (Some(OffsetMode::Offset(-1)), None),
    ] {
        let mut plan = read.clone();
        let input = root(&mut plan).input.take().map(Box::new);
        let rel_type = Some(RelType::Fetch(Box::new(FetchRel {
            input,
            offset_mode,
            count_mode,
            ..FetchRel::default()
        })));
        root(&mut plan).input = Some(Rel { rel_type });
        cases.push((plan, Code::InvalidArgument, "ask for none or more"));
    }
    let sql = "SELECT sum(id) AS s FROM t WHERE word = 'x' OR id > 3";
    let mut changed = async |change: &dyn Fn(&mut Plan), code, says| {
        let mut plan = producer.plan(sql).await;
        change(&mut plan);
        cases.push((plan, code, says));
    };
    changed(
        &|plan| {
            plan.advanced_extensions = Some(AdvancedExtension {
                enhancement: Some(Default::default()),
                ..AdvancedExtension::default()
            });
        },
        Code::Unimplemented,
        "an enhancement",
    )
    .await;
    changed(
        &|plan| plan.parameter_bindings = vec![Default::default()],
        Code::Unimplemented,
        "values of parameters inside a plan",
    )
    .await;
    changed(
        &|plan| plan.relations.push(plan.relations[0].clone()),
        Code::InvalidArgument,
        "2 trees of relations",
    )
    .await;
    changed(
        &|plan| plan.relations.clear(),
        Code::InvalidArgument,
        "0 trees of relations",
    )
    .await;
    changed(
        &|plan| root(plan).names.push("more".into()),
        Code::InvalidArgument,
        "Names list must match",
    )
    .await;
    changed(
        &|plan| root(plan).input = None,
        Code::InvalidArgument,
        "the root's input is missing",
    )
    .await;
    changed(
        &|plan| plan.extensions.clear(),
        Code::InvalidArgument,
        "not found",
    )
    .await;
    for field in [7, -1, i32::MAX] {
        changed(
            &|plan| emit(plan, field),
            Code::InvalidArgument,
            "refers to field",
        )
        .await;
    }
    changed(
        &|plan| {
            with_option(plan);
        },
        Code::Unimplemented,
        "the option \"overflow\" of a function",
    )
    .await;
    for (plan, code, says) in &cases {
        let status = alice.rows(&command(plan)).await.unwrap_err();
        assert_eq!(status.code(), *code, "{says}: {status:?}");
        assert!(status.message().contains(says), "{says}: {status:?}");
        // Preparing it tells the same.
        let status = alice.prepare_plan(plan).await.unwrap_err();
        assert!(status.message().contains(says), "{says}: {status:?}");
    }
    // What is put is to write, and a plan reads.
    let plan = producer.plan("SELECT id FROM t").await;
    refused(
        alice.put(&command(&plan), numbers("unused", [])).await,
        Code::InvalidArgument,
        "the statement is a query",
    );
    assert_eq!(panics(&server).await, before);
    server.stop().await;
}

/// Has the projection on top of a plan emit a field.
fn emit(plan: &mut Plan, field: i32) {
    let rel = root(plan).input.as_mut().unwrap();
    let Some(RelType::Project(project)) = rel.rel_type.as_mut() else {
        panic!("a projection is on top");
    };
    project.common = Some(RelCommon {
        emit_kind: Some(EmitKind::Emit(Emit {
            output_mapping: vec![field],
        })),
        ..RelCommon::default()
    });
}

/// Gives the aggregate of a plan an option.
fn with_option(plan: &mut Plan) {
    let mut rel = root(plan).input.as_mut().unwrap();
    loop {
        rel = match rel.rel_type.as_mut().unwrap() {
            RelType::Project(project) => project.input.as_mut().unwrap(),
            RelType::Aggregate(aggregate) => {
                let measure = aggregate.measures[0].measure.as_mut().unwrap();
                measure.options.push(FunctionOption {
                    name: "overflow".into(),
                    preference: vec!["ERROR".into()],
                });
                return;
            }
            other => panic!("{other:?}"),
        };
    }
}

#[tokio::test]
async fn a_plan_is_of_a_release_that_is_known() {
    let (server, mut alice, _bob) = world().await;
    let producer = Producer::of(&mut alice, &["t"]).await;
    let plan = producer.plan("SELECT id FROM t ORDER BY id").await;
    let said = |change: &dyn Fn(&mut Plan), version: &str| {
        let mut plan = plan.clone();
        change(&mut plan);
        bytes_of(plan.encode_to_vec(), version)
    };
    let [_, newest] = alice.substrait_versions().await;
    for right in [
        said(&|_| {}, &newest),
        said(&|plan| plan.version = None, &newest),
    ] {
        assert_eq!(shown(&alice.rows(&right).await.unwrap()), "1 2");
    }
    for (wrong, says) in [
        (
            said(&|plan| plan.version = None, ""),
            "does not say of which",
        ),
        (said(&|_| {}, "0.70.0"), "the command says 0.70"),
        (said(&|plan| plan.version = None, "newest"), "no release"),
        (
            said(&|plan| plan.version.as_mut().unwrap().minor_number = 20, ""),
            "is of Substrait 0.20 and this server takes",
        ),
        (
            said(&|plan| plan.version.as_mut().unwrap().major_number = 7, ""),
            "is of Substrait 7",
        ),
    ] {
        refused(alice.rows(&wrong).await, Code::InvalidArgument, says);
    }
    server.stop().await;
}

impl Client {
    /// The oldest and the newest release that the server says it takes.
    async fn substrait_versions(&mut self) -> [String; 2] {
        let mut versions = Vec::new();
        for code in [
            SqlInfo::FlightSqlServerSubstrait,
            SqlInfo::FlightSqlServerSubstraitMinVersion,
            SqlInfo::FlightSqlServerSubstraitMaxVersion,
        ] {
            let request = CommandGetSqlInfo {
                info: vec![code as u32],
            };
            let answer = self.rows(&request).await.unwrap();
            versions.push(pretty_format_batches(&[answer]).unwrap().to_string());
        }
        assert!(versions[0].contains("bool_value=true"), "{}", versions[0]);
        let value = |text: &String| {
            let (_, value) = text.split_once("string_value=").unwrap();
            value.split('}').next().unwrap().to_owned()
        };
        [value(&versions[1]), value(&versions[2])]
    }
}

#[tokio::test]
async fn what_is_said_of_plans_is_true() {
    let (server, mut alice, _bob) = world().await;
    let [oldest, newest] = alice.substrait_versions().await;
    assert_eq!(oldest, "0.64.0");
    let own = version();
    assert_eq!(
        newest,
        format!(
            "{}.{}.{}",
            own.major_number, own.minor_number, own.patch_number
        )
    );
    server.stop().await;
}

/// Bytes are taken for nothing but what they are, however deep they nest.
#[tokio::test]
async fn what_is_no_plan_is_told_so() {
    let (server, mut alice, _bob) = world().await;
    let before = panics(&server).await;
    // Relations in relations, 50,000 deep: a filter is field 2 of a relation, and a
    // filter's input field 2 of that.
    let mut deep = Vec::new();
    for _ in 0..50_000 {
        let mut outer = Vec::with_capacity(deep.len() + 6);
        outer.push(0x12);
        prost::encoding::encode_varint(deep.len() as u64, &mut outer);
        outer.append(&mut deep);
        deep = outer;
    }
    // It is field 1 of what is field 3 of a plan.
    let mut nested = deep;
    for field in [0x0a, 0x1a] {
        let mut outer = vec![field];
        prost::encoding::encode_varint(nested.len() as u64, &mut outer);
        outer.append(&mut nested);
        nested = outer;
    }
    for (bytes, says) in [
        (Vec::new(), "holds no plan"),
        (b"no plan".to_vec(), "is no message of Substrait"),
        (vec![0xff; 64], "is no message of Substrait"),
        (vec![0x1a, 0x7f, 0x0a], "is no message of Substrait"),
        (nested, "nest deeper than"),
    ] {
        let wrong = bytes_of(bytes, "0.85.0");
        refused(alice.rows(&wrong).await, Code::InvalidArgument, says);
        refused(alice.schema(&wrong).await, Code::InvalidArgument, says);
    }
    let none = CommandStatementSubstraitPlan::default();
    refused(
        alice.rows(&none).await,
        Code::InvalidArgument,
        "holds no plan",
    );
    // As deep as messages may nest is answered.
    let producer = Producer::of(&mut alice, &["t"]).await;
    let mut plan = producer.plan("SELECT id FROM t ORDER BY id").await;
    for _ in 0..40 {
        let input = root(&mut plan).input.take().unwrap();
        let always = Literal {
            literal_type: Some(LiteralType::Boolean(true)),
            ..Literal::default()
        };
        root(&mut plan).input = Some(filtered(input, RexType::Literal(always)));
    }
    assert_eq!(shown(&alice.rows(&command(&plan)).await.unwrap()), "1 2");
    assert_eq!(panics(&server).await, before);
    server.stop().await;
}

#[tokio::test]
async fn the_limits_of_statements_are_those_of_plans() {
    let server = TestServer::start_with(|config| {
        config.engine.tables_max = 3;
        config.engine.list_items_max = 4;
        config.engine.statement_bytes_max = 2_000;
    })
    .await;
    let mut alice = Client::connect(&server, Some("alice")).await;
    alice.bind(ALICE).await;
    alice.query("CREATE TABLE t (id BIGINT)").await.unwrap();
    alice
        .query("CREATE VIEW v AS SELECT a.id FROM t a, t b")
        .await
        .unwrap();
    let producer = Producer::of(&mut alice, &["t", "v"]).await;
    for (sql, says) in [
        ("SELECT a.id FROM t a, t b, t c", ""),
        ("SELECT a.id FROM t a, t b, t c, t d", "engine.tables_max"),
        ("SELECT v.id FROM v, t", "engine.tables_max"),
        ("SELECT id FROM t WHERE id IN (1, 2, 3, 4)", ""),
        (
            "SELECT id FROM t WHERE id IN (1, 2, 3, 4, 5)",
            "engine.list_items_max",
        ),
        (
            &format!("SELECT '{}' AS x", "x".repeat(2_000)),
            "engine.statement_bytes_max",
        ),
    ] {
        let plan = producer.plan(sql).await;
        let answer = alice.rows(&command(&plan)).await;
        match says {
            "" => assert!(answer.is_ok(), "{sql}: {answer:?}"),
            says => refused(answer, Code::InvalidArgument, says),
        }
    }
    server.stop().await;
}

/// What takes more to plan than its bytes tell.
#[tokio::test]
async fn a_plan_that_repeats_its_columns_stays_small() {
    let (server, mut alice, _bob) = world().await;
    let producer = Producer::of(&mut alice, &["t"]).await;
    let mut plan = producer.plan("SELECT id + 1 AS x FROM t ORDER BY id").await;
    // A column that is emitted often, over and over.
    let mut rel = producer.plan("SELECT id + 1 AS x FROM t").await;
    let mut rel = root(&mut rel).input.take().unwrap();
    for _ in 0..3 {
        let common = RelCommon {
            emit_kind: Some(EmitKind::Emit(Emit {
                output_mapping: vec![0; 100],
            })),
            ..RelCommon::default()
        };
        rel = Rel {
            rel_type: Some(RelType::Project(Box::new(ProjectRel {
                common: Some(common),
                input: Some(Box::new(rel)),
                ..ProjectRel::default()
            }))),
        };
    }
    root(&mut plan).input = Some(rel);
    root(&mut plan).names = (0..100).map(|at| format!("x{at}")).collect();
    let rows = alice.rows(&command(&plan)).await.unwrap();
    assert_eq!((rows.num_columns(), rows.num_rows()), (100, 2));
    // As many columns as would take long to name.
    let one = Expression {
        rex_type: Some(RexType::Literal(Literal {
            literal_type: Some(LiteralType::I64(1)),
            ..Literal::default()
        })),
    };
    let mut plan = producer.plan("SELECT id FROM t").await;
    let input = root(&mut plan).input.take().unwrap();
    root(&mut plan).input = Some(Rel {
        rel_type: Some(RelType::Project(Box::new(ProjectRel {
            input: Some(Box::new(input)),
            expressions: vec![one; 10_000],
            ..ProjectRel::default()
        }))),
    });
    refused(
        alice.rows(&command(&plan)).await,
        Code::InvalidArgument,
        "computes more than 8192 columns",
    );
    let mut plan = producer.plan("SELECT id + 1 AS x FROM t").await;
    let Some(RelType::Project(project)) = &mut root(&mut plan).input.as_mut().unwrap().rel_type
    else {
        panic!("a projection is on top");
    };
    project.common = Some(RelCommon {
        emit_kind: Some(EmitKind::Emit(Emit {
            output_mapping: vec![0; 100_000],
        })),
        ..RelCommon::default()
    });
    refused(
        alice.rows(&command(&plan)).await,
        Code::InvalidArgument,
        "names more than 65536 columns",
    );
    server.stop().await;
}

/// Symptom: a plan that is made from other columns than the table has is answered
/// with an error inside the engine, or with other columns.
#[tokio::test]
async fn a_plan_of_other_columns_is_told_so() {
    let (server, mut alice, mut bob) = world().await;
    let producer = Producer::of(&mut alice, &["t"]).await;
    let plan = producer.plan("SELECT id, word FROM t ORDER BY id").await;
    for (sql, says) in [
        ("ALTER TABLE t RENAME COLUMN word TO text", "word"),
        (
            "ALTER TABLE t ADD COLUMN word INT",
            "(DESCRIBE tells its columns)",
        ),
    ] {
        alice.query(sql).await.unwrap();
        let status = alice.rows(&command(&plan)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(says), "{status:?}");
        assert!(!status.message().contains(CANARY));
    }
    // Bob's own table is as it was.
    let rows = bob.rows(&command(&plan)).await.unwrap();
    assert_eq!(shown(&rows), format!("1|{CANARY} 2|{CANARY} too"));
    server.stop().await;
}

#[tokio::test]
async fn a_plan_runs_in_the_transaction_that_it_names() {
    let (server, mut alice, mut bob) = world().await;
    let producer = Producer::of(&mut alice, &["t"]).await;
    let plan = producer.plan("SELECT id FROM t ORDER BY id").await;
    let id = alice.begin().await.unwrap();
    alice
        .update_in("INSERT INTO t (id) VALUES (3)", Some(&id))
        .await
        .unwrap();
    let within = |id: &Bytes| CommandStatementSubstraitPlan {
        transaction_id: Some(id.clone()),
        ..command(&plan)
    };
    assert_eq!(shown(&alice.rows(&within(&id)).await.unwrap()), "1 2 3");
    assert_eq!(shown(&alice.rows(&command(&plan)).await.unwrap()), "1 2");
    for (client, id) in [(&mut bob, &id), (&mut alice, &Bytes::from_static(b"x"))] {
        refused(
            client.rows(&within(id)).await,
            Code::NotFound,
            "the transaction does not exist",
        );
    }
    alice.commit(&id).await.unwrap();
    assert_eq!(shown(&alice.rows(&command(&plan)).await.unwrap()), "1 2 3");
    assert_eq!(shown(&bob.rows(&command(&plan)).await.unwrap()), "1 2");
    // One that SQL began is its session's.
    alice.query("BEGIN").await.unwrap();
    alice.query("DELETE FROM t").await.unwrap();
    assert_eq!(shown(&alice.rows(&command(&plan)).await.unwrap()), "");
    alice.query("ROLLBACK").await.unwrap();
    assert_eq!(shown(&alice.rows(&command(&plan)).await.unwrap()), "1 2 3");
    server.stop().await;
}

#[tokio::test]
async fn a_prepared_plan_is_checked_again_as_it_runs() {
    let (server, mut alice, mut bob) = world().await;
    let producer = Producer::of(&mut alice, &["t"]).await;
    let plan = producer
        .plan("SELECT word FROM t WHERE id = $1 OR id = $2 + 1 ORDER BY id")
        .await;
    let made = alice.prepare_plan(&plan).await.unwrap();
    let handle = made.prepared_statement_handle;
    // Without values it is not run, prepared or not.
    for answer in [
        alice.rows(&prepared(&handle)).await,
        alice.rows(&command(&plan)).await,
    ] {
        refused(answer, Code::InvalidArgument, "has 2 parameters");
    }
    let row = |one: i64, two: i64| {
        let columns = [("$1", one), ("$2", two)];
        let columns = columns.map(|(name, value)| {
            let array: arrow::array::ArrayRef =
                Arc::new(arrow::array::Int64Array::from(vec![value]));
            (name, array)
        });
        arrow::array::RecordBatch::try_from_iter(columns).unwrap()
    };
    let bound = alice.bind_row(&handle, row(1, 5)).await.unwrap();
    let rows = alice.rows(&prepared(&bound)).await.unwrap();
    assert_eq!(shown(&rows), "own");
    let bound = alice.bind_row(&handle, row(0, 1)).await.unwrap();
    let rows = alice.rows(&prepared(&bound)).await.unwrap();
    assert_eq!(shown(&rows), "own too");
    refused(
        alice.bind_row(&handle, numbers("$1", [1])).await,
        Code::InvalidArgument,
        "2 parameters",
    );
    // The handle is Alice's, as long as her session is bound as it was.
    refused(
        bob.rows(&prepared(&bound)).await,
        Code::FailedPrecondition,
        "another session",
    );
    let his = bob.prepare_plan(&plan).await.unwrap();
    let his = bob
        .bind_row(&his.prepared_statement_handle, row(1, 1))
        .await
        .unwrap();
    let rows = bob.rows(&prepared(&his)).await.unwrap();
    assert_eq!(shown(&rows), format!("{CANARY} {CANARY} too"));
    alice.query("DROP VIEW v").await.unwrap();
    alice.query("DROP TABLE t").await.unwrap();
    refused(
        alice.rows(&prepared(&bound)).await,
        Code::NotFound,
        "table `t` does not exist",
    );
    alice.bind(BOB).await;
    refused(
        alice.rows(&prepared(&bound)).await,
        Code::FailedPrecondition,
        "bound anew",
    );
    alice.close(&handle).await.unwrap();
    server.stop().await;
}

/// A plan that is polled is run as a statement that is.
#[tokio::test]
async fn a_plan_is_polled_and_its_ticket_is_its_sessions() {
    let (server, mut alice, mut bob) = world().await;
    let producer = Producer::of(&mut alice, &["t"]).await;
    let plan = producer.plan("SELECT word FROM t ORDER BY id").await;
    let request = alice.request(crate::client::descriptor(&command(&plan)));
    let poll = alice.flight.poll_flight_info(request).await.unwrap();
    let ticket = poll.into_inner().info.unwrap().endpoint[0]
        .ticket
        .clone()
        .unwrap();
    refused(
        bob.get(ticket.clone()).await,
        Code::FailedPrecondition,
        "another session",
    );
    let batches = alice.get(ticket).await.unwrap();
    assert_eq!(shown(&batches[0]), "own own too");
    server.stop().await;
}
