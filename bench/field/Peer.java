import static java.util.stream.Collectors.toList;

import com.github.kagkarlsson.scheduler.Scheduler;
import com.github.kagkarlsson.scheduler.SchedulerName;
import com.github.kagkarlsson.scheduler.jdbc.MySQL8JdbcCustomization;
import com.github.kagkarlsson.scheduler.task.ExecutionContext;
import com.github.kagkarlsson.scheduler.task.TaskInstance;
import com.github.kagkarlsson.scheduler.task.helper.OneTimeTask;
import com.github.kagkarlsson.scheduler.task.helper.Tasks;
import com.zaxxer.hikari.HikariDataSource;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.stream.IntStream;

/**
 * What Dalga is held against by the case "field": db-scheduler, whose jobs are POSTs.
 *
 * <p>Arguments: the database's JDBC URL, user and password, the endpoint's URL, how many threads,
 * and the lower and upper limit of its polling as fractions of the threads. The table is there.
 *
 * <p>Each line of the standard input is an order, and its answer is the same line:
 *
 * <ul>
 *   <li>{@code schedule PREFIX COUNT}: one-time jobs, due a minute ago, each to be POSTed to the
 *       path of its name; answered when they are committed
 *   <li>{@code start}: a scheduler that runs what is due
 *   <li>{@code stop}: and no more, once the jobs that have begun have ended
 * </ul>
 */
public class Peer {
  private static final Duration TIMEOUT = Duration.ofSeconds(60);
  private static final int BATCH = 1000;

  /** To the database: with 10, 30 or 100 it was no faster. */
  private static final int CONNECTIONS = 20;

  private final HttpClient client =
      HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).connectTimeout(TIMEOUT).build();
  private final HikariDataSource database = new HikariDataSource();
  private final OneTimeTask<Void> task = Tasks.oneTime("post").execute(this::post);
  private final String endpoint;
  private final int threads;
  private final double lower;
  private final double upper;

  Peer(String[] arguments) {
    endpoint = arguments[3];
    threads = Integer.parseInt(arguments[4]);
    lower = Double.parseDouble(arguments[5]);
    upper = Double.parseDouble(arguments[6]);
    database.setJdbcUrl(arguments[0]);
    database.setUsername(arguments[1]);
    database.setPassword(arguments[2]);
    database.setMaximumPoolSize(CONNECTIONS);
  }

  public static void main(String[] arguments) throws IOException {
    new Peer(arguments).obey(new BufferedReader(new InputStreamReader(System.in)));
  }

  private void obey(BufferedReader orders) throws IOException {
    Scheduler scheduler = build();
    for (String order = orders.readLine(); order != null; order = orders.readLine()) {
      String[] words = order.split(" ");
      switch (words[0]) {
        case "schedule" -> schedule(scheduler, words[1], Integer.parseInt(words[2]));
        case "start" -> scheduler.start();
        case "stop" -> {
          scheduler.stop();
          scheduler = build();
        }
        default -> throw new IllegalArgumentException(order);
      }
      System.out.println(order);
    }
    database.close();
  }

  /** MariaDB takes MySQL's statements: db-scheduler's own choice would be to fetch without locks. */
  private Scheduler build() {
    return Scheduler.create(database, task)
        .schedulerName(new SchedulerName.Fixed("bench"))
        .jdbcCustomization(new MySQL8JdbcCustomization(true))
        .threads(threads)
        .pollUsingLockAndFetch(lower, upper)
        .pollingInterval(Duration.ofSeconds(1))
        .build();
  }

  private void schedule(Scheduler scheduler, String prefix, int count) {
    Instant due = Instant.now().minusSeconds(60);
    for (int first = 0; first < count; first += BATCH) {
      List<TaskInstance<?>> batch =
          IntStream.range(first, Math.min(first + BATCH, count))
              .mapToObj(number -> task.instance(prefix + number))
              .collect(toList());
      scheduler.scheduleBatch(batch, due);
    }
  }

  /** A job's run: an exception would have it tried again later. */
  private void post(TaskInstance<Void> job, ExecutionContext context) {
    HttpRequest request =
        HttpRequest.newBuilder(URI.create(endpoint + job.getId()))
            .timeout(TIMEOUT)
            .header("Content-Type", "text/plain")
            .POST(BodyPublishers.ofString("bench"))
            .build();
    try {
      int status = client.send(request, BodyHandlers.discarding()).statusCode();
      if (status != 200) {
        throw new IllegalStateException(endpoint + " answered " + status);
      }
    } catch (IOException | InterruptedException failure) {
      throw new IllegalStateException(failure);
    }
  }
}
