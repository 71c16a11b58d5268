"""Passwords and keys of URIs: hidden in every text, wherever and however they are spelt there."""

from __future__ import annotations

import pickle

import pytest

from raypipe.errors import UserError, redact, redact_all, secrets_of


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://me:s3cret@host:5432/db", "postgresql://***@host:5432/db"),
        ("postgresql+psycopg2://me:p@ss/w#rd?@host/db", "postgresql+psycopg2://***@host/db"),
        ("http://me@mail.org:s3cret@host:5000", "http://***@host:5000"),
        ("https://TOKEN@host/path", "https://***@host/path"),
        ("http://:s3cret@host", "http://***@host"),
        ("s3://AKIA:SE/CRET+x@bucket/p?region=eu", "s3://***@bucket/p?region=eu"),
        ("s3://b/p?access_key=AKIA&secret_key=SECRET&region=eu", "s3://b/p?access_key=***&secret_key=***&region=eu"),
        ("s3://b/p?session_token=SECRET", "s3://b/p?session_token=***"),
        ("s3://b?X-Amz-Credential=AKIA&X-Amz-Signature=abc", "s3://b?X-Amz-Credential=***&X-Amz-Signature=***"),
        ("abfs://box@acc.dfs.net/x?sv=1&sig=abc%3D", "abfs://box@acc.dfs.net/x?sv=1&sig=***"),
        ("abfs://box:KEY@acc.dfs.net/x", "abfs://***@acc.dfs.net/x"),
        (
            "s3://b?endpoint_override=http%3A%2F%2Fu%3ASECRET%40h&x=1",
            "s3://b?endpoint_override=http%3A%2F%2F***%40h&x=1",
        ),
        ("s3://b?endpoint_override=http://u:SECRET@h:9000", "s3://b?endpoint_override=http://***@h:9000"),
        ("simplecache::ftp://me:s3cret@host/x", "simplecache::ftp://***@host/x"),
        ("mysql://h/db?ssl=1;PASSWORD=abc;x=1", "mysql://h/db?ssl=1;PASSWORD=***;x=1"),
        ("mssql+pyodbc:///?odbc_connect=PWD%3Dabc", "mssql+pyodbc:///?odbc_connect=***"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("http://[::1]:5000/x", "http://[::1]:5000/x"),
        ("s3://bucket/file@2", "s3://bucket/file@2"),
        ("sqlite:////runs/a@b/mlflow.db", "sqlite:////runs/a@b/mlflow.db"),
        ("file:///a%20b?x=1", "file:///a%20b?x=1"),
    ],
)
def test_a_uri_is_shown_without_its_secrets(uri, shown):
    assert redact(uri) == shown
    for text in (f"cannot open {uri}: no", f"[{uri!r}]", f'{{"uri":"{uri}","mail":"a@b"}}', f"<code>{uri}</code>"):
        assert redact(text) == text.replace(uri, shown)
    assert redact_all({"a": [uri, 1, None], "b": {"c": uri}}) == {"a": [shown, 1, None], "b": {"c": shown}}
    error = UserError(f"{uri}: no")
    assert str(error) == f"{shown}: no"
    assert str(pickle.loads(pickle.dumps(error))) == f"{shown}: no"
    assert uri == shown or uri not in repr(error)


def test_the_secrets_of_a_known_uri_are_hidden_alone_too():
    uri = "postgresql://me:p%40ss word@host/db?sslpassword=other%2Fone"
    text = "failed: 'p@ss word' or p%40ss%20word or other/one; me@host/db"
    assert redact(text, uri) == "failed: '***' or *** or ***; me@host/db"
    assert redact(text) == text  # a word is only a secret where one knows it
    assert secrets_of("sqlite:///mlflow.db") == set()
