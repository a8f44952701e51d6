-- The outbox table in daily partitions: old days are dropped instead of deleted row by row.
--
-- Instead of sql/outbox.sql, not after it; same columns, same rights, same way to run it. What it
-- costs: `id` is unique within one day only (Postgres can check uniqueness only together with the
-- partition key), and somebody must make partitions ahead: call outbox_add_partitions() daily.
-- There is no default partition on purpose: with one, `detach partition … concurrently` is refused,
-- and a forgotten schedule would fill it unnoticed. Without a partition an insert fails (23514).

create table if not exists outbox (
    -- No primary key: it could not be (id). The index below finds an event by its id.
    id uuid not null,
    aggregatetype text not null
        constraint outbox_aggregatetype_routable
        check (aggregatetype collate "C" ~ '^[A-Za-z0-9._-]{1,236}$'),
    aggregateid text not null
        constraint outbox_aggregateid_size check (octet_length(aggregateid) between 1 and 1024),
    type text not null
        constraint outbox_type_size check (octet_length(type) between 1 and 1024),
    payload json
        constraint outbox_payload_size check (octet_length(payload::text) <= 983040),
    -- The identity is the parent's. Before 17 partitions do not inherit it, so a row that is written
    -- into a partition directly has no seq and is refused: writers go through the parent.
    seq bigint not null generated always as identity,
    txid xid8 not null default pg_current_xact_id(),
    created_at timestamptz not null default clock_timestamp(),
    aggregateversion bigint,
    traceparent text
        constraint outbox_traceparent_form
        check (traceparent collate "C" ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}')
) partition by range (created_at);

create index if not exists outbox_id on outbox (id);

-- Serves recovery, polling and audit: `txid >= <xmax> or txid = any (<in progress>)`.
-- None on created_at: the partitions are that index.
create index if not exists outbox_txid on outbox (txid);

-- Makes the partition of today and of the next `days` days (UTC) where they are missing, and says
-- which. A new table is built aside and then attached, because `create table … partition of` would
-- lock all writers out for a moment, while attaching does not.
create or replace function outbox_add_partitions(days int default 14) returns setof text
language plpgsql
-- No search_path of its own: it works in the schema of the parent, which it looks up.
as $$
declare
    parent constant regclass := 'outbox'::regclass;
    home constant text := (select relnamespace::regnamespace::text from pg_class where oid = parent);
    day date;
    leaf text;
begin
    for ahead in 0 .. days loop
        day := (now() at time zone 'UTC')::date + ahead;
        leaf := 'outbox_' || to_char(day, 'YYYYMMDD');
        continue when to_regclass(format('%s.%I', home, leaf)) is not null;
        execute format('create table %s.%I (like %s including all excluding identity)', home, leaf, parent);
        execute format(
            'alter table %s.%I set (autovacuum_vacuum_insert_threshold = 100000, '
            'autovacuum_vacuum_insert_scale_factor = 0)', home, leaf);
        execute format(
            'alter table %s attach partition %s.%I for values from (%L) to (%L)',
            parent, home, leaf, day::text || ' 00:00:00+00', (day + 1)::text || ' 00:00:00+00');
        return next leaf;
    end loop;
end
$$;

-- Functions are everybody's by default; this one makes tables.
revoke execute on function outbox_add_partitions(int) from public;

select outbox_add_partitions(14);

-- Rows are published under the parent's name, so the relay knows one table, whatever partitions come
-- and go.
do $$
begin
    if not exists (select from pg_publication where pubname = 'postrider') then
        create publication postrider for table outbox
            with (publish = 'insert', publish_via_partition_root = true);
    elsif not (select pubinsert from pg_publication where pubname = 'postrider') then
        raise exception 'publication postrider is there already and publishes no inserts'
            using hint = 'drop or rename it, or: alter publication postrider set (publish = ''insert'')';
    elsif not exists (
        select from pg_publication p
        where p.pubname = 'postrider' and (p.puballtables or exists (
            select from pg_publication_rel r
            where r.prpubid = p.oid and r.prrelid = 'outbox'::regclass))
    ) then
        alter publication postrider add table outbox;
    end if;
    if not (select pubviaroot from pg_publication where pubname = 'postrider') then
        alter publication postrider set (publish_via_partition_root = true);
    end if;
end
$$;
