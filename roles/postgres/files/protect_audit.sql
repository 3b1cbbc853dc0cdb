-- Makes the audit table insert-only for the gateway's role, although that role owns the database and made the table:
-- the table, its schema and its trigger's function go to a role that nobody can log in as.
-- A superuser runs this file in the gateway's database, any number of times. Where there are no tables yet, the
-- migration 0003_audit_owner.sql calls the function that it leaves.
--
-- What the gateway's role can still do: leave lines out, write untrue ones (at the true time), put a table of the same
-- name into public, which queries that name no schema find first, and, as the owner of the database, drop all of it
-- from another database of the server. The kit's pg_hba.conf lets it into no other.

-- The owner of the database chooses the settings that a session in it begins with: nothing here may depend on them.
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SET LOCAL search_path = pg_catalog, pg_temp;
SET LOCAL client_min_messages = warning;
SET LOCAL lock_timeout = '30s';

-- Roles belong to the whole server: another database's run may be making it at this moment.
DO $$
BEGIN
  CREATE ROLE claude_oauth_audit NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
  NULL;
END
$$;

-- The schema is created again on each run, so that it holds nothing but what this script creates.
DROP SCHEMA IF EXISTS claude_oauth_audit CASCADE;
CREATE SCHEMA claude_oauth_audit;

-- Names what would be a way round the new owner; null where the table is as the migrations make it.
-- A part is what goes when the table goes. None may need anything that is not a part: a function that an index calls,
-- a type, a parent, an extension that takes its members along. Rules, policies, other triggers and children have no
-- place at all.
CREATE FUNCTION claude_oauth_audit.found_amiss() RETURNS text
LANGUAGE sql AS $$
  WITH RECURSIVE audit AS (
    SELECT tableoid AS classid, oid AS objid, relkind = 'r' AND relpersistence = 'p' AND NOT relrowsecurity AS plain
    FROM pg_class WHERE oid = to_regclass('claude_oauth."LiteLLM_ClaudeOAuthAudit"')
  ), part AS (
    SELECT classid, objid FROM audit
    UNION SELECT tableoid, oid FROM pg_namespace WHERE nspname = 'claude_oauth'
    UNION SELECT tableoid, oid FROM pg_proc WHERE oid = to_regprocedure('claude_oauth.refuse_change()')
    UNION
    SELECT d.classid, d.objid FROM pg_depend d JOIN part ON d.refclassid = part.classid AND d.refobjid = part.objid
    WHERE d.deptype IN ('a', 'i')
  ), amiss AS (
    SELECT classid, objid FROM pg_depend JOIN part USING (classid, objid)
    WHERE (refclassid, refobjid) NOT IN (SELECT classid, objid FROM part) AND refclassid <> 'pg_language'::regclass
    UNION SELECT classid, objid FROM part WHERE classid IN ('pg_rewrite'::regclass, 'pg_policy'::regclass)
    UNION SELECT classid, objid FROM part JOIN pg_trigger t ON classid = t.tableoid AND objid = t.oid
      WHERE tgname <> 'claude_oauth_audit_insert_only'
    UNION SELECT classid, inhrelid FROM audit JOIN pg_inherits ON inhparent = objid
    UNION SELECT classid, objid FROM audit WHERE NOT plain
    UNION SELECT classid, objid FROM audit JOIN pg_attribute ON attrelid = objid
      WHERE attname = 'audit_id' AND attidentity <> 'a'
  )
  SELECT string_agg(pg_describe_object(classid, objid, 0), ', ') FROM amiss
$$;

-- Works with a superuser's rights on things that its caller has made. So it takes no argument, evaluates nothing of the
-- caller's, and ends with an error, having changed nothing, where it finds anything that the migrations do not make.
CREATE FUNCTION claude_oauth_audit.protect() RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $protect$
DECLARE
  gateway name;
  amiss   text;
  holder  text;
BEGIN
  SELECT pg_get_userbyid(relowner) INTO gateway
  FROM pg_class WHERE oid = to_regclass('claude_oauth."LiteLLM_ClaudeOAuthAudit"');
  IF gateway IS NULL OR gateway = 'claude_oauth_audit' THEN
    RETURN; -- there is no table yet, or all is done: nobody but a superuser can make that role an owner
  END IF;
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'begin the transaction with isolation level read committed: '
      'any other does not see what another session has just added to the table';
  END IF;

  -- From here on nobody can change or exchange any of it: the comments wait for the end of an ALTER EXTENSION, the
  -- other statements for everything else. Only then is it looked at.
  ALTER SCHEMA claude_oauth OWNER TO claude_oauth_audit;
  ALTER TABLE claude_oauth."LiteLLM_ClaudeOAuthAudit" OWNER TO claude_oauth_audit;
  ALTER FUNCTION claude_oauth.refuse_change() OWNER TO claude_oauth_audit;
  COMMENT ON SCHEMA claude_oauth IS 'litellm_oauth';
  COMMENT ON TYPE claude_oauth."LiteLLM_ClaudeOAuthAudit" IS 'a line of the audit';
  amiss := claude_oauth_audit.found_amiss();
  IF amiss IS NOT NULL THEN
    RAISE EXCEPTION 'the audit table is not as the migrations make it: %', amiss
      USING HINT = 'Find out who changed it, and take that away.';
  END IF;

  -- As in 0001, whatever became of it since.
  CREATE OR REPLACE FUNCTION claude_oauth.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $refuse$
  BEGIN
    RAISE EXCEPTION 'the audit table may be added to and read, not changed (%)', TG_OP
      USING ERRCODE = 'insufficient_privilege';
  END
  $refuse$;
  CREATE OR REPLACE TRIGGER claude_oauth_audit_insert_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON claude_oauth."LiteLLM_ClaudeOAuthAudit"
    FOR EACH STATEMENT EXECUTE FUNCTION claude_oauth.refuse_change();
  ALTER TABLE claude_oauth."LiteLLM_ClaudeOAuthAudit" ALTER COLUMN at SET DEFAULT clock_timestamp();

  -- The former owner may have given rights to any role that it is a member of.
  FOR holder IN
    SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
    FROM (SELECT relacl FROM pg_class WHERE relowner = 'claude_oauth_audit'::regrole
          UNION SELECT attacl FROM pg_attribute
          WHERE attrelid = 'claude_oauth."LiteLLM_ClaudeOAuthAudit"'::regclass) AS given (acl), aclexplode(acl)
  LOOP
    EXECUTE format('REVOKE ALL ON claude_oauth."LiteLLM_ClaudeOAuthAudit" FROM %s CASCADE', holder);
    EXECUTE format('REVOKE ALL ON SEQUENCE claude_oauth."LiteLLM_ClaudeOAuthAudit_audit_id_seq" FROM %s CASCADE', holder);
  END LOOP;
  EXECUTE format('GRANT USAGE, CREATE ON SCHEMA claude_oauth TO %I', gateway);
  EXECUTE format('GRANT INSERT (actor, origin, action, user_id, outcome, detail, generation), SELECT '
                 'ON claude_oauth."LiteLLM_ClaudeOAuthAudit" TO %I', gateway);
  -- pg_dump of the whole database reads it.
  EXECUTE format('GRANT SELECT ON SEQUENCE claude_oauth."LiteLLM_ClaudeOAuthAudit_audit_id_seq" TO %I', gateway);
END
$protect$;

-- Anybody may look for the function (a migration that may not would end), the gateway's role may call it.
GRANT USAGE ON SCHEMA claude_oauth_audit TO PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA claude_oauth_audit FROM PUBLIC;
GRANT EXECUTE ON FUNCTION claude_oauth_audit.protect() TO pg_database_owner;

DO $$
BEGIN
  PERFORM claude_oauth_audit.protect();
END
$$;
COMMIT;
