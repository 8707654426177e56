"""
What people write for cron: the normal form that is kept, and what is refused with what would do.

`tests.test_schedule` has the times that come of it, and `tests.test_schedule_properties` holds them
to a slow reference.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dalga.model.cron import cron_from_text

#: As it is written, and its normal form.
NORMAL = [
    ("*/5 9-17 1,15 * mon,Wed", "*/5 9-17 1,15 * mon,Wed"),
    ("0 0 * * 0-7", "0 0 * * 0-7"),
    ("40/10 5 L,LW JAN-mar 7#2,5L", "40/10 5 L,LW JAN-mar 7#2,5L"),
    ("  30\t9  * *\n* ", "30 9 * * *"),
    # Names for five fields.
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    (" @Annually ", "0 0 1 1 *"),
    # Any day.
    ("0 12 ? * 1", "0 12 * * 1"),
    ("0 12 1 * ?", "0 12 1 * *"),
    ("0 12 ? * ?", "0 12 * * *"),
    ("0 15 10 ? * MON-FRI", "0 15 10 * * MON-FRI"),
    ("0 15 10 L * ?", "0 15 10 L * *"),
    ("0 0/5 14,18 * * ?", "0 0/5 14,18 * * *"),
    ("0 0 0 ? * FRIL,MON#2", "0 0 0 * * 5L,MON#2"),
    ("0 0 0 ? * */2", "0 0 0 * * */2"),
    # One value, in each field.
    ("5-5/1 8-8/1 3-3/2 2-2/12 5-5/7", "5 8 3 2 5"),
    ("7-7/3 8-8 * 3-3/1 * *", "7 8 * 3 * *"),
    ("0 0 * MAR-March/2 FRI-5/2", "0 0 * MAR FRI"),
    ("0 0 * * 7-0/2", "0 0 * * 0"),
    # Ranges that wrap.
    ("50-10 * * * * *", "50-59,0-10 * * * * *"),
    ("59-0 22-2 * * *", "59,0 22-23,0-2 * * *"),
    ("0 22-2/2 * * *", "0 22,0,2 * * *"),
    ("0 20-6/5 * * *", "0 20,1,6 * * *"),
    ("0 0 25-5 NOV-FEB *", "0 0 25-31,1-5 11-12,1-2 *"),
    ("0 0 * OCT-MAR/3 *", "0 0 * 10,1 *"),
    ("0 0 * * FRI-MON", "0 0 * * 5-6,0-1"),
    ("0 0 * * FRI-MON/2", "0 0 * * 5,0"),
    ("0 0 * * 5-1,3", "0 0 * * 5-6,0-1,3"),
    # Sunday is a week's first day, and its last.
    ("0 0 * * MON-SUN", "0 0 * * 1-7"),
    ("0 0 * * SAT-SUN", "0 0 * * 6-7"),
    ("0 0 * * fri-sun/2", "0 0 * * 5-7/2"),
    ("0 0 * * SUN-TUE", "0 0 * * SUN-TUE"),
    ("0 0 * * 7-2", "0 0 * * 0-2"),
    # Names in full, or shortened.
    ("0 0 * January-SEPT Monday,thurs", "0 0 * JAN-SEP MON,THU"),
    ("0 0 * * FRIL", "0 0 * * 5L"),
    ("0 0 * * sundayL,SATURDAY#3", "0 0 * * 0L,SAT#3"),
    # Steps as wide as the field are once a turn of it.
    ("*/60 * * * * *", "*/60 * * * * *"),
    ("*/45 */24 * * *", "*/45 */24 * * *"),
    ("0 0 */31 */12 */7", "0 0 */31 */12 */7"),
]

#: What is refused, and words of the sentence that says why and what would do.
REFUSED = [
    # A step wider than its field.
    ("*/90 * * * * *", "a step of 90 in the second field, which has 60 values", "interval=PT90S"),
    ("*/90 * * * *", "a step of 90 in the minute field, which has 60 values", "interval=PT90M"),
    ("5/61 * * * *", "a step of 61 in the minute field", "interval=PT61M"),
    ("0-59/90 * * * *", "a step of 90 in the minute field", "interval=PT90M"),
    ("8-8/90 * * * *", "a step of 90 in the minute field", "interval=PT90M"),
    ("0 */36 * * *", "a step of 36 in the hour field, which has 24 values", "interval=PT36H"),
    ("0 0 */32 * *", "a step of 32 in the day-of-month field", "interval=P32D"),
    ("0 0 1 */18 *", "a step of 18 in the month field, which has 12 values", "interval=P18M"),
    ("0 0 * * */8", "a step of 8 in the day-of-week field, which has 7 values", "interval=P8D"),
    ("*/0 * * * *", "a step of 0 in the minute field", "write 1 to 60"),
    # AWS has the year last.
    ("0 10 * * ? *", "six fields as AWS writes them, the year last", "write 0 10 * * *"),
    ("0 10 ? * 2-6 *", "six fields as AWS writes them", "write 0 10 * * MON-FRI"),
    ("0 8 ? * 6#3,1L 2026-2027", "AWS", "write 0 8 * * FRI#3,0L, and first-run and until for"),
    ("cron(15 10 * * ? *)", "six fields as AWS writes them", "write 15 10 * * *"),
    ("0 0 15W * ? *", "AWS", "write the first five of them, and days by their names"),
    ("rate(5 minutes)", "is a rate of AWS", "interval=5m"),
    ("rate(1 day)", "is a rate of AWS", "interval=P1D"),
    ("at(2030-01-31T09:00:00)", "is a time of AWS", "one-off=true and first-run=2030-01-31T09:00"),
    ("cron(x)", "is no cron expression, of AWS or another", "write five fields"),
    # Quartz counts days of the week from another.
    ("0 0 12 ? * 2", "as Quartz has, where Monday is 2", "names, MON if they are Quartz's"),
    ("0 0 12 ? * 2-6", "where Monday is 2", "names, MON-FRI if they are Quartz's"),
    ("0 0 12 ? * 6L,3#1", "where Monday is 2", "names, FRIL,TUE#1 if they are Quartz's"),
    ("0 0 12 ? * 0", "where Monday is 2", "names, such as MON-FRI"),
    ("* * * ? * L-2", "where Monday is 2", "names, such as MON-FRI"),
    ("0 0 12 ? * MON/2", "where Monday is 2", "names, such as MON-FRI"),
    # A year.
    ("0 0 1 1 * 2030", "a field for the year", "write 0 0 1 1 *, and first-run and until for"),
    ("0 0 12 1/1 * ? *", "a field for the year", "write 0 0 12 1/1 * *"),
    ("0 0 12 1 1 ? 2030", "a field for the year", "write 0 0 12 1 1 *, and first-run and until"),
    ("0 0 12 1 1 * 2030", "a field for the year", "and first-run and until for the year 2030"),
    ("0 0 12 ? * 5 *", "a field for the year", "write 0 0 12 * * THU"),
    ("0 30 22 ? * SUN-THU *", "a field for the year", "write 0 30 22 * * SUN-THU"),
    ("* * * L-3 * ? *", "a field for the year", "write the others"),
    # Other crons' own.
    ("0 27 * * * ? * US/Pacific", "its zone at the end", "location=US/Pacific, and leave it out"),
    ("0 9 * * * UTC", "its zone at the end", "location=UTC, and leave it out"),
    ("0 9 * * MON#L", "'MON#L' in the day-of-week field", "write MONL"),
    ("0 0 15W * *", "'15W' in the day-of-month field", "LW"),
    ("0 0 L-3 * *", "'L-3' in the day-of-month field", "L for the last, or a number such as 28"),
    ("0 0 * * L", "L alone in the day-of-week field", "SAT for each Saturday"),
    ("H H * * *", "'H' in the minute field", "write one (0-59), and jitter="),
    ("0 H(0-7)/2 * * *", "'H(0-7)/2' in the hour field", "write one (0-23), and jitter="),
    ("0~30 * * * *", "'0~30' in the minute field", "write one (0-59), and jitter="),
    ("? * * * *", "? in the minute field", "write *"),
    ("0 0 1 ? *", "? in the month field", "write *"),
    ("@reboot", "is no time", "one-off=true and immediate=true"),
    ("@every 5m", "is elapsed time", "interval=5m"),
    ("@every 1h30m", "is elapsed time", "interval=1h30m"),
    ("@every fortnight", "is elapsed time", "interval=5m"),
    ("@minutely", "is none of @hourly, @daily", "write five fields"),
    ("@daily /bin/x", "is none of @hourly, @daily", "write five fields"),
    ("CRON_TZ=Europe/Riga 0 9 * * *", "its zone in front", "location=Europe/Riga"),
    ('TZ="Asia/Tokyo" 0 9 * * *', "its zone in front", "location=Asia/Tokyo, and leave it out"),
    # What is none.
    ("", "has 0 fields", "write five fields (minute, hour"),
    ("*", "has one field", "such as 30 9 * * MON-FRI"),
    ("* * * *", "has 4 fields", "or six with seconds in front"),
    ("* * * * * * *", "has 7 fields", "write five fields"),
    ("0 17 * * MON_FRI", "'MON_FRI' in the day-of-week field", "takes 0-7 and SUN-SAT, ranges"),
    ("0 9 * * * root /bin/x x", "has 8 fields", "leave a crontab's command out"),
    ("60 * * * *", "'60' in the minute field", "takes 0-59"),
    ("x * * * *", "'x' in the minute field", "takes 0-59"),
    (", * * * *", "'' in the minute field", "takes 0-59"),
    ("1-2-3 * * * *", "'1-2-3' in the minute field", "takes 0-59"),
    ("*-5 * * * *", "'*-5' in the minute field", "takes 0-59"),
    ("*/2/2 * * * *", "'*/2/2' in the minute field", "takes 0-59"),
    ("L * * * * *", "'L' in the second field", "takes 0-59"),
    ("0 24 * * *", "'24' in the hour field", "takes 0-23"),
    ("0 -1 * * *", "'-1' in the hour field", "takes 0-23"),
    ("0 MON * * *", "'MON' in the hour field", "takes 0-23"),
    ("0 0 0 * *", "'0' in the day-of-month field", "takes 1-31, L and LW"),
    ("0 0 L/2 * *", "'L/2' in the day-of-month field", "takes 1-31, L and LW"),
    ("0 0 30-32 * *", "'30-32' in the day-of-month field", "takes 1-31"),
    ("0 0 * 13 *", "'13' in the month field", "takes 1-12 and JAN-DEC"),
    ("0 0 * JA *", "'JA' in the month field", "takes 1-12 and JAN-DEC"),
    ("0 0 * JANUARIES *", "'JANUARIES' in the month field", "takes 1-12 and JAN-DEC"),
    ("0 0 * * 8", "'8' in the day-of-week field", "takes 0-7 and SUN-SAT"),
    ("0 0 * * MON#6", "'MON#6' in the day-of-week field", "takes 0-7 and SUN-SAT"),
    ("0 0 * * MON#", "'MON#' in the day-of-week field", "takes 0-7 and SUN-SAT"),
    ("0 0 * * 1-5#2", "'1-5#2' in the day-of-week field", "takes 0-7 and SUN-SAT"),
    ("0 0 * * MON#2/2", "'MON#2/2' in the day-of-week field", "takes 0-7 and SUN-SAT"),
    ("0 0 * * XYZL", "'XYZL' in the day-of-week field", "takes 0-7 and SUN-SAT"),
    ("0 0 * * \u017fUN", "a letter that is not of the English alphabet", "write five fields"),
    ("\u00b2 * * * *", "a letter that is not of the English alphabet", "write five fields"),
    ("1," * 123 + "10 9 * * *", "has 256 characters", "255 are the most"),
    ("0 " + ",".join(["22-21/1"] * 20) + " * * *", "has 1247 characters", "255 are the most"),
    ("1" * 248 + " 9 * * *", "has 256 characters", "255 are the most"),
    # What never comes.
    ("0 0 30 2 *", "names a time that never comes", "no such day"),
    ("0 0 31 4,6,9,11 *", "names a time that never comes", "no such day"),
    ("0 0 0 30 FEB ?", "names a time that never comes", "no such day"),
    ("0 0 */31 2 MON#2", "names a time that never comes", "no such day"),
    ("0 0 */20 * 1L", "names a time that never comes", "no such day"),
]


class CronTests(SynchronousTestCase):
    """Cron expressions as text."""

    def test_normal_forms(self) -> None:
        """What is written in another way has the form that cronsim reads as it was meant."""
        for written, normal in NORMAL:
            self.assertEqual(cron_from_text(written), normal)

    def test_a_normal_form_is_its_own(self) -> None:
        """What is shown can be given, and what is kept is read back."""
        for _, normal in NORMAL:
            self.assertEqual(cron_from_text(normal), normal)
            self.assertEqual(cron_from_text(normal, stored=True), normal)

    def test_refused(self) -> None:
        """All else is refused with what is wrong, and what would do."""
        for text, problem, advice in REFUSED:
            error = self.assertRaises(ValueError, cron_from_text, text)
            self.assertIn(problem, str(error), text)
            self.assertIn(advice, str(error).partition(problem)[2], text)
            self.assertLess(len(str(error)), 300)

    def test_what_is_advised(self) -> None:
        """An expression that a sentence recommends is taken."""
        for text in ("0 10 * * ? *", "0 10 ? * 2-6 *", "0 0 12 1/1 * ? *", "0 0 1 1 * 2030"):
            error = self.assertRaises(ValueError, cron_from_text, text)
            advised = str(error).partition(" write ")[2].partition(", and ")[0]
            self.assertEqual(cron_from_text(advised), advised)

    def test_the_longest(self) -> None:
        longest = "1," * 123 + "1 9 * * *"
        self.assertEqual(cron_from_text(longest), longest)

    def test_from_the_table(self) -> None:
        """What a version that looked less closely has let in goes on at the same times."""
        for written, normal in (
            ("*/90 * * * * *", "*/60 * * * * *"),
            ("5/90 */36 */99 1/13 */8", "5/60 */24 */31 1/12 */7"),
            ("0 0 L/2,LW/3 * *", "0 0 L,LW * *"),
        ):
            self.assertEqual(cron_from_text(written, stored=True), normal)
