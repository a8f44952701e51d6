-- The outbox table: one row is one event, written in the transaction of the change it tells of.
--
-- Run it as the role that shall own the table, with CREATE on the schema and on the database (the
-- publication needs the latter): `psql -1 -v ON_ERROR_STOP=1 -f sql/outbox.sql`. The table lands in
-- the first schema of search_path. Postgres 13 to 18; running it again changes nothing.
-- Roles and grants are sql/outbox_roles.sql; docs/outbox.md explains every column.

create table if not exists outbox (
    -- Debezium's five columns, so that its consumers and its writers need no change.

    -- The event's identity, made by the writer; consumers recognise a repetition by it.
    id uuid primary key,
    -- Names the topic: outbox.event.<aggregatetype>. Kafka allows 249 of these characters, the
    -- prefix takes 13. An unroutable row is refused here, while its writer is still there to hear it.
    aggregatetype text not null
        constraint outbox_aggregatetype_routable
        check (aggregatetype collate "C" ~ '^[A-Za-z0-9._-]{1,236}$'),
    -- The key: every event of one aggregate goes to one partition, in order.
    aggregateid text not null
        constraint outbox_aggregateid_size check (octet_length(aggregateid) between 1 and 1024),
    type text not null
        constraint outbox_type_size check (octet_length(type) between 1 and 1024),
    -- json and not jsonb: consumers get the very bytes that were written (jsonb reorders keys and
    -- rewrites numbers), and decoding costs the server half as much. NULL is a tombstone. 960 KiB
    -- leaves room for key and headers below the 1,000,000 bytes that Kafka clients send by default.
    payload json
        constraint outbox_payload_size check (octet_length(payload::text) <= 983040),

    -- Ours. Writers set neither of these three.

    -- Order inside a transaction. "always", so that no writer brings a number of its own; without a
    -- sequence cache, so that the numbers of one key follow the order of its lock.
    seq bigint not null generated always as identity,
    -- The top-level transaction, also inside savepoints. It decides what has been delivered when the
    -- table is read instead of the replication slot.
    txid xid8 not null default pg_current_xact_id(),
    -- When the row was written, not when its transaction began; retention goes by it.
    created_at timestamptz not null default clock_timestamp(),

    -- Optional, for writers that have them; they become headers.

    aggregateversion bigint,
    traceparent text
        constraint outbox_traceparent_form
        check (traceparent collate "C" ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}')
);

-- Serves recovery, polling and audit: `txid >= <xmax> or txid = any (<in progress>)`.
create index if not exists outbox_txid on outbox (txid);

-- Serves retention and "what happened around noon": `created_at < <limit>`. The table grows in this
-- order, so block ranges find the rows, at a few kilobytes and next to nothing per insert.
create index if not exists outbox_created_at on outbox using brin (created_at)
    with (pages_per_range = 32, autosummarize = on);

-- Insert-only, hence the default fillfactor of 100: there is no update that could use free space.
-- Vacuum by a count of rows, not by a share of a table that only grows: it marks new pages all-visible
-- and freezes them in small steps instead of in one anti-wraparound run over everything, and it
-- frees what retention deleted soon enough to be used again.
alter table outbox set (
    autovacuum_vacuum_insert_threshold = 100000,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_threshold = 50000,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_analyze_threshold = 50000,
    autovacuum_analyze_scale_factor = 0
);

comment on table outbox is 'events to be relayed to Kafka, written in the transaction they tell of';
comment on column outbox.txid is 'top-level transaction of the row; set by the server, never by a writer';

-- Inserts only: what retention deletes is not an event. The publication must exist before the
-- replication slot does, since a slot reads the catalog as it was at each position of the log.
do $$
begin
    if not exists (select from pg_publication where pubname = 'postrider') then
        create publication postrider for table outbox with (publish = 'insert');
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
end
$$;
