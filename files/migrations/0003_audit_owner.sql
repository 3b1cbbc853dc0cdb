-- The gateway's role owns what it makes, and an owner can undo all that protects a table. Where the kit's database
-- server offers it (roles/postgres/files/protect_audit.sql), the audit table gets an owner that nobody can log in as.
-- Any other server is left with the trigger and the rights of 0001.
-- From then on the gateway's role may not run what 0001 says about that table again; a superuser may run all of it.
DO $$
BEGIN
  IF has_function_privilege(to_regprocedure('claude_oauth_audit.protect()'), 'EXECUTE') THEN
    PERFORM claude_oauth_audit.protect();
  END IF;
END
$$;
