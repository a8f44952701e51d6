-- Gives an existing Debezium outbox table what exact recovery needs, without rewriting it.
--
-- Replace `outboxevent` by your table's name throughout. Run it with `psql -v ON_ERROR_STOP=1 -f` as
-- the table's owner, not with -1: the index is built without locking writers out, which does not
-- work inside a transaction. Running it again changes nothing. Writers that name their columns, and
-- Debezium itself, go on while it runs and afterwards.

-- The two `alter table` take the table's strongest lock for a moment. Rather give up than make every
-- writer queue behind a long transaction.
set lock_timeout = '5s';

-- Only constant defaults here: those are kept in the catalog, and no row is touched. With the default
-- that is wanted, `default pg_current_xact_id()`, Postgres would rewrite the table under that lock
-- and stamp every old row with the transaction of this very statement.
alter table outboxevent
    add column if not exists seq bigint not null default 0,
    add column if not exists txid xid8,
    add column if not exists created_at timestamptz,
    add column if not exists aggregateversion bigint,
    add column if not exists traceparent text;

-- From here on every new row is stamped; rows from before keep NULL, and seq 0: they are older than
-- the feature. "generated always" needs no right on a sequence, so writers need no new grant.
do $$
begin
    if (select attidentity from pg_attribute
        where attrelid = 'outboxevent'::regclass and attname = 'seq') = '' then
        alter table outboxevent
            alter column seq drop default,
            alter column seq add generated always as identity,
            alter column txid set default pg_current_xact_id(),
            alter column created_at set default clock_timestamp(),
            -- "not valid": new rows are held to it, old ones are not read.
            add constraint outboxevent_txid_present check (txid is not null) not valid;
    end if;
end
$$;

-- A build that was broken off leaves an invalid index under this name: drop it, then run this again.
create index concurrently if not exists outboxevent_txid on outboxevent (txid)
    where txid is not null;

do $$
begin
    if not exists (select from pg_publication where pubname = 'postrider') then
        create publication postrider for table outboxevent with (publish = 'insert');
    elsif not (select pubinsert from pg_publication where pubname = 'postrider') then
        raise exception 'publication postrider is there already and publishes no inserts'
            using hint = 'drop or rename it, or: alter publication postrider set (publish = ''insert'')';
    elsif not exists (
        select from pg_publication p
        where p.pubname = 'postrider' and (p.puballtables or exists (
            select from pg_publication_rel r
            where r.prpubid = p.oid and r.prrelid = 'outboxevent'::regclass))
    ) then
        alter publication postrider add table outboxevent;
    end if;
end
$$;

reset lock_timeout;

-- Recommended, and yours to decide because it concerns your roles: keep writers from setting txid and
-- seq by naming the columns they may set.
--   revoke insert on outboxevent from <writer>;
--   grant insert (id, aggregatetype, aggregateid, type, payload, aggregateversion, traceparent)
--       on outboxevent to <writer>;
