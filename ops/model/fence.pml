/* The fence protocol, for the model checker Spin (https://spinroot.com). Start with README.md.
 *
 * Everything here is one big loop. Each `::` below is one thing that may happen next: something an
 * operations system does, a detector, the publisher, Kafka's cleaner, a crash, time. Spin tries every order
 * of them. Lines that begin with `Say` are printed when a counterexample is played back.
 *
 *   emitter --REPORT, OVER--> log of each partition --> detector --OPEN, RELEASE, ECHO--> holds --> publisher
 *                                   ^------------------------FENCE------------------------------------'
 *
 * There is one offer and every hold covers it: matchers are the business of other checks. Whoever reports
 * is answered in the step in which the record is appended: a later answer would only ask for less.
 *
 * Each fault that can be put in is a `-D` switch; `./run model` tries them all.
 */

/* ---- Bounds: how much may happen in one run. ------------------------------------------------------------ */
#ifndef EVENTS
#define EVENTS 2          /* Reports and all-clears, on any partition. */
#endif
#ifndef NEED
#define NEED 1            /* So many reports open a hold: a rule that counts. */
#endif
#ifndef FENCES
#define FENCES 2
#endif
#ifndef CRASHES
#define CRASHES 1         /* Of detectors. */
#endif
#ifndef REBALANCES
#define REBALANCES 1      /* The old owner goes on until it notices. */
#endif
#ifndef SNAPSHOTS
#define SNAPSHOTS 1
#endif
#ifndef RESTARTS
#define RESTARTS 0        /* Of the publisher. */
#endif
#ifndef LONGS
#define LONGS 0           /* Times in which fences grow void and records old enough to be compacted. */
#endif
#ifndef CLEANINGS
#define CLEANINGS 0       /* Runs of the log cleaner on the topic of holds. */
#endif
#ifndef GROWS
#define GROWS 0           /* Somebody adds a partition. */
#endif
#ifndef CUTS
#define CUTS 0            /* Retention removes all that a partition has, read or not. */
#endif
#ifndef POLICIES
#define POLICIES 0        /* A new policy, under which nothing is held. */
#endif

#ifndef SENDS
#define SENDS 0           /* The offer goes out, and may be taken back; else only whether it may is asked. */
#endif
#ifndef TIME
#define TIME 0            /* Leases run out; else only what a fence proves is asked. */
#endif

#ifndef P
#define P 2               /* Partitions that the services were built for, */
#endif
#define Q (P+GROWS)       /* and with one that somebody adds. */
#define D 2               /* Detectors. */
#define LOG (EVENTS + FENCES + POLICIES)  /* Records of one partition, at most. */
#define HOLDS ((EVENTS + FENCES * P + CUTS) * (1 + CRASHES + REBALANCES) + CUTS)  /* Records of the topic of holds. */

/* ---- Records: a kind, and a number behind it. ----------------------------------------------------------- */
#define REPORT  1         /* In the log: event number n. */
#define OVER    2
#define FENCE   3         /* Fence number n. */
#define POLICY  4
#define OPEN    1         /* In the topic of holds: the hold of event n. */
#define RELEASE 2
#define ECHO    3         /* Of fence n on partition p: n * Q + p. */
#define rec(kind, n)  ((kind) + 8 * (n))
#define kind_of(r)    ((r) % 8)
#define number_of(r)  ((r) / 8)
#define LOST(p)       (EVENTS + 1 + (p))   /* The hold on everything, where records were lost unread. */
#define ONES(n)       ((1 << (n)) - 1)

#define Say(a) a

/* ---- Kafka. --------------------------------------------------------------------------------------------- */
byte parts = P;                 /* Partitions there are. */
byte log[Q * LOG];
byte end[Q];
byte start[Q];                  /* Records before it are gone. */
byte holds[HOLDS];              /* 0: removed by the cleaner. */
byte h_end;
byte old;                       /* Records of `holds` before it are older than min.compaction.lag.ms. */
byte owner[Q];                  /* Which detector the group gave a partition to. */
byte snap_at[Q], snap_count[Q], snap_hold[Q], group_at[Q];
bit  snap_lax[Q];

/* ---- Detectors. ----------------------------------------------------------------------------------------- */
bit  has[D * Q];                /* It believes that the partition is its own. */
byte at[D * Q], count[D * Q], hold[D * Q];
bit  lax[D * Q];                /* The policy in its state. */
byte out0[D], out1[D], outs[D]; /* On their way to Kafka, in order: one idempotent producer. */

/* ---- The publisher. ------------------------------------------------------------------------------------- */
byte h_at;                      /* Read so far of `holds`. */
int  opened, released;          /* Sets of holds. */
byte fence;                     /* The fence in flight; 0: none. */
byte written, echoed;           /* Sets of partitions. */
bit  counted, fresh, stale;      /* Partitions counted behind its begin; begun within the lease; too old. */
byte passed;                    /* The newest fence that has passed; 0: none. */
bit  passed_fresh;
byte publication;               /* 0 not begun, 1 on its way, 2 out, 3 taken back. */
int  to_say, said;              /* Status updates: sets of holds whose incident is to be told. */

/* ---- What is true, whoever knows it. -------------------------------------------------------------------- */
byte t_count[Q], stands[Q];     /* The disruption that stands: the number of its event; 0: none. */
bit  t_lax[Q];
bit  ripe[Q];                   /* It was acknowledged at least one lease ago. */
byte before[Q];                 /* What stood when the fence in flight was begun, */
byte passed_before[Q];          /* and the one that has passed. */
bit  file_lax;                  /* For a fault: the policy in a file, and not in the log. */

/* ---- How much has happened. ----------------------------------------------------------------------------- */
byte events, fences, crashes, rebalances, snapshots, restarts, longs, cleanings, grows, cuts, policies;
bit  overrun;                      /* There was no room for a record: a mistake of this model. */

/* Scratch, reset to 0 so that it makes no states. */
byte r, k, i, j;
bit  yes;

#ifdef NO_FENCE
#define may_send (!opened)
#else
#define may_send (passed && passed_fresh && !opened)
#endif

#define ix(d, p)   ((d) * Q + (p))
#define all_p(p)   p : 0 .. (Q - 1)
#ifdef REUSED_ID
#define id_of(n)   1
#else
#define id_of(n)   (n)
#endif

inline append(p, record) {
    if
    :: end[p] < LOG -> log[(p) * LOG + end[p]] = record; end[p]++
    :: else -> overrun = 1
    fi
}

/* What an event means, for the truth: it stands from here on, or no longer. */
inline truly(p, record) {
    if
    :: kind_of(record) == REPORT ->
        t_count[p]++;
        if
        :: t_count[p] >= NEED && !stands[p] && !t_lax[p] -> stands[p] = number_of(record); ripe[p] = 0
        :: else
        fi
    :: kind_of(record) == OVER -> t_count[p] = 0; stands[p] = 0; ripe[p] = 0
    :: kind_of(record) == POLICY -> t_lax[p] = 1
    fi
}

inline emit(p) {
    if
    :: r = REPORT
    :: t_count[p] -> r = OVER
    fi;
    events++;
    r = rec(r, events);
    append(p, r);
    truly(p, r);
    if
    :: kind_of(r) == REPORT -> Say(printf("operations system: event %d, a report, is acknowledged on partition %d\n", events, p))
    :: else -> Say(printf("operations system: event %d, the all-clear, is acknowledged on partition %d\n", events, p))
    fi;
    r = 0
}

inline push(d, record) {
    if
    :: outs[d] == 0 -> out0[d] = record
    :: else -> out1[d] = record
    fi;
    outs[d]++
}

inline pop(d) {
    out0[d] = out1[d]; out1[d] = 0; outs[d]--
}

inline land(record) {
    if
    :: h_end < HOLDS -> holds[h_end] = record; h_end++
    :: else -> overrun = 1
    fi;
    if
    :: kind_of(record) == OPEN && number_of(record) <= EVENTS -> to_say = to_say | (1 << number_of(record))
    :: else
    fi
}

#ifdef POLICY_FILE
#define is_lax(d, p) file_lax
#else
#define is_lax(d, p) lax[ix(d, p)]
#endif

/* A detector takes the next record of a partition into its state. */
inline fold(d, p) {
    r = log[(p) * LOG + at[ix(d, p)]];
    at[ix(d, p)]++;
    k = number_of(r);
    if
    :: kind_of(r) == REPORT ->
        count[ix(d, p)]++;
        Say(printf("detector %d: reads on partition %d the report of event %d\n", d, p, k));
        if
        :: count[ix(d, p)] >= NEED && !hold[ix(d, p)] && !is_lax(d, p) ->
            hold[ix(d, p)] = id_of(k);
            push(d, rec(OPEN, id_of(k)))
        :: else
        fi
    :: kind_of(r) == OVER ->
        count[ix(d, p)] = 0;
        Say(printf("detector %d: reads on partition %d the all-clear of event %d\n", d, p, k));
        if
        :: hold[ix(d, p)] -> push(d, rec(RELEASE, hold[ix(d, p)])); hold[ix(d, p)] = 0
        :: else
        fi
    :: kind_of(r) == FENCE ->
        Say(printf("detector %d: reads on partition %d the fence %d, to be echoed\n", d, p, k));
#ifdef ECHO_FIRST
        land(rec(ECHO, k * Q + p))
#else
        push(d, rec(ECHO, k * Q + p))
#endif
    :: kind_of(r) == POLICY ->
        Say(printf("detector %d: reads on partition %d the new policy\n", d, p));
        lax[ix(d, p)] = 1
    fi;
#ifdef GROUP_OFFSET
    group_at[p] = at[ix(d, p)];  /* As a consumer that commits by itself. */
#endif
    r = 0; k = 0
}

inline restore(d, p) {
    has[ix(d, p)] = 1;
    count[ix(d, p)] = snap_count[p]; hold[ix(d, p)] = snap_hold[p]; lax[ix(d, p)] = snap_lax[p];
    at[ix(d, p)] = snap_at[p];
#ifdef NO_STATE
    count[ix(d, p)] = 0; hold[ix(d, p)] = 0;
#endif
#ifdef GROUP_OFFSET
    at[ix(d, p)] = (group_at[p] > snap_at[p] -> group_at[p] : snap_at[p]);
#endif
#ifdef NO_REPLAY
    at[ix(d, p)] = end[p];
#endif
    Say(printf("detector %d: is given partition %d, restores its snapshot and reads on at record %d\n", d, p, at[ix(d, p)]));
    if
    :: at[ix(d, p)] < start[p] ->
#ifndef RETENTION_UNSEEN
        push(d, rec(OPEN, LOST(p)));
        Say(printf("detector %d: records before it are gone: a hold on everything\n", d));
#endif
        at[ix(d, p)] = start[p]
    :: else
    fi
}

inline drop(d, p) {
    has[ix(d, p)] = 0; at[ix(d, p)] = 0; count[ix(d, p)] = 0; hold[ix(d, p)] = 0; lax[ix(d, p)] = 0
}

inline crash(d) {
    for (all_p(i)) { drop(d, i) }
    i = 0;
    out0[d] = 0; out1[d] = 0; outs[d] = 0;
    Say(printf("detector %d: ends, and what it had not written is lost\n", d))
}

inline save(d, p) {
    snap_at[p] = at[ix(d, p)]; snap_count[p] = count[ix(d, p)];
    snap_hold[p] = hold[ix(d, p)]; snap_lax[p] = lax[ix(d, p)];
    snapshots++;
    Say(printf("detector %d: writes a snapshot of partition %d at record %d\n", d, p, at[ix(d, p)]))
}

/* The publisher reads one record of the topic of holds. */
inline read_hold() {
    r = holds[h_at]; h_at++;
    k = number_of(r);
    if
    :: kind_of(r) == OPEN ->
        Say(printf("publisher: reads that hold %d opens\n", k));
        if
#ifndef OPEN_WINS
        :: released & (1 << k)
#endif
        :: else ->
            opened = opened | (1 << k);
#ifndef NO_TAKE_BACK
            if
            :: publication == 2 && k <= EVENTS -> publication = 3; Say(printf("publisher: takes the offer back\n"))
            :: else
            fi
#endif
        fi
    :: kind_of(r) == RELEASE ->
        Say(printf("publisher: reads that hold %d is released\n", k));
        released = released | (1 << k); opened = opened & ~(1 << k)
    :: kind_of(r) == ECHO && k / Q == fence && fence ->
        Say(printf("publisher: reads the echo of fence %d from partition %d\n", fence, k % Q));
        echoed = echoed | (1 << (k % Q)); try_pass()
    :: else -> Say(printf("publisher: reads nothing that matters (compacted, or an old fence's echo)\n"))
    fi;
    r = 0; k = 0
}

#ifdef ONE_PARTITION
#define AWAITED ONES(1)
#else
#define AWAITED ONES(P)
#endif

inline try_pass() {
    if
    :: fence && echoed == AWAITED && counted && !stale ->
        passed = fence;
#ifdef LEASE_FROM_ECHO
        passed_fresh = 1;
#else
        passed_fresh = fresh;
#endif
        for (all_p(i)) { passed_before[i] = before[i] }
        i = 0;
        Say(printf("publisher: fence %d has passed\n", fence));
        end_fence()
    :: else
    fi
}

inline end_fence() {
    fence = 0; written = 0; echoed = 0; counted = 0; fresh = 0; stale = 0;
    for (all_p(j)) { before[j] = 0 }
    j = 0
}

inline begin_fence() {
    fences++;
    fence = fences; fresh = 1;
    for (all_p(i)) { before[i] = stands[i] }
    i = 0;
#if defined(STALE_COUNT) || !GROWS
    counted = 1;
#endif
    Say(printf("publisher: begins fence %d\n", fence))
}

/* A lease passes: what was begun before it is too old, what was acknowledged before it is to be silent. */
inline tick() {
    fresh = 0; passed_fresh = 0;
    for (all_p(i)) { ripe[i] = (stands[i] != 0) }
    i = 0;
    Say(printf("time: a lease passes\n"))
}

#ifdef NO_LAG
#define CLEANABLE h_end
#else
#define CLEANABLE old
#endif

/* Kafka's cleaner: of equal keys the last stays. A fact has its own key, and its copies have the same. */
inline clean() {
    for (i : 0 .. (HOLDS - 1)) {
        for (j : 0 .. (HOLDS - 1)) {
            if
            :: i < j && j < CLEANABLE && holds[i] == holds[j] -> holds[i] = 0
            :: else
            fi
        }
    }
    i = 0; j = 0;
    Say(printf("Kafka: the cleaner has run over the topic of holds\n"))
}

/* ---- What must hold. ------------------------------------------------------------------------------------ */

/* Silence. Asked in every state in which the publisher would send the offer. */
inline check_silence() {
    if
    :: may_send ->
        for (all_p(i)) {
            if
            :: stands[i] && (ripe[i] || passed_before[i] == stands[i]) ->
                Say(printf("WRONG: the offer may go out, and the disruption of event %d was acknowledged before\n", stands[i]));
                assert(false)
            :: else
            fi
        }
        i = 0
    :: else
    fi
}

/* Where nothing more can happen. Every run of this model is finite, so what must come at last has come here. */
inline check_end() {
#ifdef UPDATE_WAITS
    if
    :: may_send -> said = to_say
    :: else
    fi;
#else
    said = to_say;  /* It waits for nothing, and nothing waits for it: when does not matter. */
#endif
    for (all_p(i)) {
        if
        :: i < parts && stands[i] && !(opened & (1 << id_of(stands[i]))) && !(opened & (1 << LOST(i))) ->
            Say(printf("WRONG: a disruption stands and at the end nothing is held\n")); assert(false)
        :: else
        fi
    }
    for (i : 1 .. EVENTS) {
        yes = 0;
        for (all_p(j)) { yes = yes || stands[j] == i }
        if
        :: (opened & (1 << i)) && !yes && !cuts -> Say(printf("WRONG: a hold that ended is open\n")); assert(false)
        :: (to_say & (1 << i)) && !(said & (1 << i)) -> Say(printf("WRONG: a status update was never sent\n")); assert(false)
        :: else
        fi
    }
    yes = 0; i = 0; j = 0;
    if
    :: fence && parts == P && !cuts -> Say(printf("WRONG: nothing is broken and the fence does not pass\n")); assert(false)
    :: publication == 2 && (opened & ONES(EVENTS + 1)) -> Say(printf("WRONG: what is out stays out under a hold\n")); assert(false)
    :: publication == 1 -> assert(false)
    :: else
    fi
}

/* ---- Guards that need more than an expression. ---------------------------------------------------------- */
#define OWNED(d, p)      (owner[p] == d && !has[ix(d, p)] && (p) < parts && outs[d] == 0)
#ifdef SNAPSHOT_EARLY
#define SETTLED(d)       1
#elif defined(ECHO_UNSETTLED)
#define SETTLED(d)       (!HOLDS_BACK(d))
#else
#define SETTLED(d)       (outs[d] == 0)
#endif
#define CHANGED(d, p)    (has[ix(d, p)] && at[ix(d, p)] != snap_at[p] && SETTLED(d))
#define NEXT(d, p)       log[(p) * LOG + at[ix(d, p)]]
#define HOLDS_BACK(d)    ((outs[d] > 0 && kind_of(out0[d]) != ECHO) || (outs[d] > 1 && kind_of(out1[d]) != ECHO))
#ifdef ECHO_FIRST
#define IN_ORDER(d, p)   1
#else
#define IN_ORDER(d, p)   (kind_of(NEXT(d, p)) != FENCE || !HOLDS_BACK(d))
#endif
#define CAN_FOLD(d, p)   (has[ix(d, p)] && at[ix(d, p)] < end[p] && at[ix(d, p)] >= start[p] && outs[d] < 2 && IN_ORDER(d, p))

#define UNRIPE(p)        (stands[p] && !ripe[p])
#if P + GROWS > 2
#define ANY_UNRIPE       (UNRIPE(0) || UNRIPE(1) || UNRIPE(2))
#elif P + GROWS > 1
#define ANY_UNRIPE       (UNRIPE(0) || UNRIPE(1))
#else
#define ANY_UNRIPE       UNRIPE(0)
#endif
#define TIME_TELLS       (TIME && (fresh || passed_fresh || ANY_UNRIPE))

#define of_detector(d, p) \
    :: d_step { CAN_FOLD(d, p) -> fold(d, p) } \
    :: d_step { OWNED(d, p) -> restore(d, p) } \
    :: d_step { has[ix(d, p)] && owner[p] != d -> drop(d, p); Say(printf("detector %d: notices that partition %d is not its own\n", d, p)) } \
    :: d_step { has[ix(d, p)] && at[ix(d, p)] < start[p] && outs[d] == 0 -> behind(d, p) } \
    :: d_step { snapshots < SNAPSHOTS && CHANGED(d, p) -> save(d, p) }

#define of_partition(p) \
    :: atomic { events < EVENTS && (p) < parts -> emit(p) } \
    :: d_step { fence && (p) < P && !(written & (1 << (p))) -> append(p, rec(FENCE, fence)); written = written | (1 << (p)) } \
    :: d_step { rebalances < REBALANCES && (p) < parts -> owner[p] = 1 - owner[p]; rebalances++; Say(printf("Kafka: partition %d goes to detector %d\n", p, owner[p])) } \
    :: d_step { cuts < CUTS && start[p] < end[p] -> start[p] = end[p]; cuts++; Say(printf("Kafka: retention removes what partition %d has\n", p)) }

/* A detector that runs finds that what it would read next is gone. */
inline behind(d, p) {
#ifdef CUT_UNSEEN
    at[ix(d, p)] = start[p]
#else
    at[ix(d, p)] = start[p];
    push(d, rec(OPEN, LOST(p)));
    Say(printf("detector %d: what it would read next is gone: a hold on everything\n", d))
#endif
}

init {
    for (all_p(i)) { has[ix(0, i)] = 1 }
    i = 0;
    do
    of_partition(0)
    of_detector(0, 0)
    of_detector(1, 0)
#if P + GROWS > 1
    of_partition(1)
    of_detector(0, 1)
    of_detector(1, 1)
#endif
#if P + GROWS > 2
    of_partition(2)
    of_detector(0, 2)
    of_detector(1, 2)
#endif
    :: d_step { outs[0] > 0 -> land(out0[0]); pop(0); Say(printf("Kafka: acknowledges an output of detector 0\n")) }
    :: d_step { outs[1] > 0 -> land(out0[1]); pop(1); Say(printf("Kafka: acknowledges an output of detector 1\n")) }
    :: d_step { crashes < CRASHES && (outs[0] || has[0]) -> crash(0); crashes++ }
    :: d_step { crashes < CRASHES && (outs[1] || has[ix(1, 0)]) -> crash(1); crashes++ }
#ifdef ECHO_AFTER_FAILED
    :: d_step { outs[0] > 0 && kind_of(out0[0]) == OPEN -> pop(0); Say(printf("detector 0: a hold could not be written, and it goes on\n")) }
#endif
    :: d_step { policies < POLICIES -> policies++; file_lax = 1; Say(printf("operations: a policy under which nothing is held\n"));
#ifndef POLICY_FILE
                append(0, rec(POLICY, 0)); t_lax[0] = 1;
#if P > 1
                append(1, rec(POLICY, 0)); t_lax[1] = 1
#endif
#else
                t_lax[0] = 1;
#if P > 1
                t_lax[1] = 1
#endif
#endif
       }
    :: d_step { grows < GROWS -> grows++; parts = P + 1; Say(printf("operations: somebody adds a partition\n")) }

    /* The publisher. */
    :: d_step { !fence && fences < FENCES -> begin_fence() }
    :: d_step { fence && !counted && !stale ->
                if
                :: parts == P -> counted = 1; try_pass()
                :: else -> end_fence()
                fi }
    :: d_step { fence && stale -> end_fence() }
    :: d_step { h_at < h_end -> read_hold(); check_silence() }
    :: d_step { SENDS && publication == 0 && may_send -> check_silence(); publication = 1; Say(printf("publisher: the offer is on its way\n")) }
    :: d_step { publication == 1 -> publication = 2; Say(printf("publisher: the offer is out\n"));
#if !defined(NO_TAKE_BACK) && !defined(ON_ITS_WAY)
                if
                :: opened & ONES(EVENTS + 1) -> publication = 3; Say(printf("publisher: takes the offer back\n"))
                :: else
                fi
#endif
       }
    :: d_step { restarts < RESTARTS && (h_at || fence) -> restarts++; h_at = 0; opened = 0; released = 0; passed = 0; passed_fresh = 0;
                end_fence();
                for (all_p(i)) { passed_before[i] = 0 }
                i = 0;
                Say(printf("publisher: ends, and another begins\n")) }

    /* Time, and Kafka's cleaner. */
    :: d_step { TIME_TELLS -> tick(); check_silence() }
    :: d_step { longs < LONGS -> longs++; tick(); old = h_end;
                if
                :: fence -> stale = 1
                :: else
                fi;
                Say(printf("time: a long one; fences are void, records may be compacted\n")); check_silence() }
    :: d_step { cleanings < CLEANINGS && h_end > 1 -> cleanings++; clean() }
    :: overrun -> break
    :: else -> break
    od;
    if
    :: !overrun -> check_end()
    :: else -> assert(false)
    fi
}
