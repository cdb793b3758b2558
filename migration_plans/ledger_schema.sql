-- The ledger: where every migration stands, and how it came there.
-- Run as a whole, under a lock, when the schema is missing (migration_plans/ledger.py).

CREATE SCHEMA IF NOT EXISTS ledger;

-- One row a migration: the present. Changed only by compare-and-set on `version`.
CREATE TABLE ledger.migration (
    name      text PRIMARY KEY,
    version   bigint NOT NULL CHECK (version > 0),
    record    json   NOT NULL,
    head_seq  bigint NOT NULL,
    head_hash text   NOT NULL
);

-- One row an event: the past. `detail` is json, not jsonb: its text is hashed as it was written.
CREATE TABLE ledger.history (
    migration text   NOT NULL,
    seq       bigint NOT NULL CHECK (seq > 0),
    at        text   NOT NULL,
    actor     text   NOT NULL CHECK (actor <> ''),
    event     text   NOT NULL,
    state     text   NOT NULL,
    stage     text   NOT NULL,
    percent   text   NOT NULL,
    detail    json   NOT NULL,
    previous  text   NOT NULL,
    hash      text   NOT NULL,
    PRIMARY KEY (migration, seq)
);

-- One row an attempt to deliver an alert.
CREATE TABLE ledger.delivery (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    migration text        NOT NULL,
    seq       bigint      NOT NULL,
    target    text        NOT NULL,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    delivered boolean     NOT NULL,
    detail    text        NOT NULL,
    FOREIGN KEY (migration, seq) REFERENCES ledger.history (migration, seq)
);

-- What the controller sees right now, for `strangler status`. Not history: overwritten every second.
CREATE TABLE ledger.observation (
    name text PRIMARY KEY,
    at   timestamptz NOT NULL,
    body json NOT NULL
);

CREATE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege', HINT = 'write a new event instead';
END $$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.history
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.delivery
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

-- also for sessions in replica mode, which skip ordinary triggers
ALTER TABLE ledger.history ENABLE ALWAYS TRIGGER append_only;
ALTER TABLE ledger.delivery ENABLE ALWAYS TRIGGER append_only;
