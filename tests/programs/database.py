"""PostgreSQL by psycopg2, at `HOST`: the same, and with the same words, as Database.java of the image `runtimes`."""
import io, sys
import psycopg2

ROWS = 100_000

connection = psycopg2.connect(host=sys.argv[1], dbname="yourcode", user="yourcode", password="yourcode")


def total(query):
    """With a cursor of the server's, so that the rows come a thousand at a time."""
    with connection.cursor("rows") as cursor:
        cursor.itersize = 1000
        cursor.execute(query)
        return sum(row[0] for row in cursor)


print(total("SELECT 1 FROM greetings"), "greetings")
print(total(f"SELECT n, repeat('x', 100) FROM generate_series(1, {ROWS}) n"), "in all")
with connection.cursor() as cursor:
    cursor.execute("CREATE TEMPORARY TABLE numbers (n bigint)")
    cursor.copy_expert("COPY numbers FROM STDIN", io.StringIO("".join(f"{n}\n" for n in range(1, ROWS + 1))))
print(total("SELECT sum(n)::bigint FROM numbers"), "written")
