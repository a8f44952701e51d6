-- Roles around the outbox with the least rights; after sql/outbox.sql or sql/outbox_partitioned.sql.
--
-- Run it as an administrator (CREATEROLE, and owner of the table or superuser), in the database of
-- the table. Running it again changes nothing. These are group roles that cannot log in:
--   grant outbox_writer to <the application's role>;
--   grant outbox_relay to <the relay's role>;
-- REPLICATION is not inherited from a group, and only an administrator can give it:
--   create role relay login replication password '…' in role outbox_relay;
-- On a managed service it has another name, such as `grant rds_replication to relay`.
-- REPLICATION is a strong right: its holder can read any published table and drop any slot of the
-- cluster. Give it to the relay's role and to nothing else.

do $$
begin
    if not exists (select from pg_roles where rolname = 'outbox_owner') then
        create role outbox_owner nologin;
    end if;
    if not exists (select from pg_roles where rolname = 'outbox_writer') then
        create role outbox_writer nologin;
    end if;
    if not exists (select from pg_roles where rolname = 'outbox_relay') then
        create role outbox_relay nologin;
    end if;

    -- The owner is not the application: an owner passes every grant below.
    execute format(
        'grant usage, create on schema %s to outbox_owner',
        (select relnamespace::regnamespace from pg_class where oid = 'outbox'::regclass));
    execute format(
        'grant usage on schema %s to outbox_writer, outbox_relay',
        (select relnamespace::regnamespace from pg_class where oid = 'outbox'::regclass));
    execute format('grant connect on database %I to outbox_writer, outbox_relay', current_database());
end
$$;

-- To change the owner of a table one must be a member of the new owner, or superuser. Partitions have
-- owners of their own, and only the owner can drop one.
alter table outbox owner to outbox_owner;
do $$
declare
    leaf regclass;
begin
    for leaf in select inhrelid from pg_inherits where inhparent = 'outbox'::regclass loop
        execute format('alter table %s owner to outbox_owner', leaf);
    end loop;
    if to_regprocedure('outbox_add_partitions(int)') is not null then
        alter function outbox_add_partitions(int) owner to outbox_owner;
    end if;
end
$$;

-- Writers name the columns they may set. Not seq, txid and created_at: rows that carry the numbers of
-- another cluster or of another moment would be taken for delivered, or be delivered for ever.
-- No select, update or delete: what is written to the outbox is said.
revoke all on outbox from outbox_writer;
grant insert (id, aggregatetype, aggregateid, type, payload, aggregateversion, traceparent)
    on outbox to outbox_writer;

-- Streaming needs REPLICATION alone. Select is for recovery, audit and lag: reading the table instead
-- of the slot. The relay never writes to the outbox.
revoke all on outbox from outbox_relay;
grant select on outbox to outbox_relay;
