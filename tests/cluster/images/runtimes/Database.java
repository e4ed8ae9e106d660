import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;

/** PostgreSQL by JDBC, at {@code HOST}: the same, and with the same words, as programs/database.py. */
class Database {
    private static final int ROWS = 100_000;

    public static void main(String[] args) throws SQLException {
        String url = "jdbc:postgresql://" + args[0] + "/yourcode";
        try (Connection connection = DriverManager.getConnection(url, "yourcode", "yourcode")) {
            // As a cursor has them, not all at once.
            connection.setAutoCommit(false);
            System.out.println(sum(connection, "SELECT 1 FROM greetings") + " greetings");
            System.out.println(sum(connection, "SELECT n, repeat('x', 100) FROM generate_series(1, " + ROWS + ") n") + " in all");
            connection.createStatement().execute("CREATE TEMPORARY TABLE numbers (n bigint)");
            PreparedStatement insert = connection.prepareStatement("INSERT INTO numbers VALUES (?)");
            for (int n = 1; n <= ROWS; n++) {
                insert.setLong(1, n);
                insert.addBatch();
            }
            insert.executeBatch();
            System.out.println(sum(connection, "SELECT sum(n)::bigint FROM numbers") + " written");
        }
    }

    private static long sum(Connection connection, String query) throws SQLException {
        PreparedStatement statement = connection.prepareStatement(query);
        statement.setFetchSize(1000);
        ResultSet rows = statement.executeQuery();
        long sum = 0;
        while (rows.next()) sum += rows.getLong(1);
        return sum;
    }
}
