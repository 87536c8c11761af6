"""The SQL database that mirror and publisher share: engine, schema, migrations."""
