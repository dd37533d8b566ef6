#!/usr/bin/perl
# A client of cron-trigger-server by somebody who has read docs/http.md and nothing else,
# in a language that nobody here used yet.  perl 5.14 and what comes with it.
#
#   seventh_client.pl ADDRESS list
#   seventh_client.pl ADDRESS start NAME KEY [PARAMETER=VALUE ...]
#   seventh_client.pl ADDRESS wait ID
#   seventh_client.pl ADDRESS log ID
#   seventh_client.pl ADDRESS cancel ID
#   seventh_client.pl ADDRESS plan NAME TIME [PARAMETER=VALUE ...]
#   seventh_client.pl ADDRESS unplan ID
#
# The secret comes from the environment: SECRET.

use strict;
use warnings;
use HTTP::Tiny;
use JSON::PP;

my ($address, $command, @arguments) = @ARGV;
my $json = JSON::PP->new->utf8->canonical;
my %secret = defined $ENV{SECRET} ? ('X-Trigger-Secret' => $ENV{SECRET}) : ();
# "A comment every 15 s": what is silent for longer is broken.
my $http = HTTP::Tiny->new(timeout => 40, default_headers => \%secret);

my %commands = (
    list => \&list, start => \&start, wait => \&wait_for, log => \&show_log,
    cancel => \&cancel, plan => \&plan, unplan => \&unplan,
);
($commands{$command // ''} or die "what is that?\n")->(@arguments);

sub list {
    for my $cron (@{ ask('GET', 'crons')->{crons} }) {
        my $state = $cron->{running} ? 'running' : 'idle';
        my $last = $cron->{lastRun} ? $cron->{lastRun}{status} : 'never';
        my $parameters = join ',', sort keys %{ $cron->{parameters} };
        print "$cron->{cronName} $state last=$last parameters=$parameters\n";
    }
}

sub start {
    my ($name, $key, @pairs) = @_;
    my $body = { cronName => $name, params => { pairs(@pairs) } };
    my $answer = ask('POST', 'trigger', $body, { 'Idempotency-Key' => $key });
    my $again = $answer->{again} ? ' (again)' : '';
    print "started $answer->{runId}$again\n";
}

# By live events.  A run that ended before the stream began is not told any more, so its
# state is asked for once the stream's first bytes are there: no moment is in neither.
sub wait_for {
    my ($id) = @_;
    my ($run, $last_id, $event, $rest) = (undef, undef, '', '');
    my $heard = sub {
        my ($bytes) = @_;
        if (!defined $last_id) {
            print STDERR "listening\n";
            $run = ended($id);
        }
        die "over\n" if $run;
        $last_id //= '';
        $rest .= $bytes;
        while ($rest =~ s/\A(.*?)\n//) {
            my $line = $1;
            if    ($line =~ /\Aid: (.*)/)    { $last_id = $1 }
            elsif ($line =~ /\Aevent: (.*)/) { $event = $1 }
            elsif ($line =~ /\Adata: (.*)/ && $event eq 'run.finished') {
                my $told = $json->decode($1)->{run};
                $run = $told if $told->{id} == $id;
                die "over\n" if $run;
            }
        }
    };
    until ($run) {
        my %headers = length($last_id // '') ? ('Last-Event-ID' => $last_id) : ();
        my $options = { headers => \%headers, data_callback => $heard };
        my $response = $http->get("$address/events", $options);
        last if $run;
        $rest = '';
        refuse($response->{status}, $response->{content}) if $response->{status} =~ /^4/;
        sleep($response->{headers}{'retry-after'} || 2);
    }
    my $exit = $run->{exitCode} // 'none';
    print "run $id $run->{status} exit=$exit\n";
}

sub ended {
    my ($id) = @_;
    my $run = ask('GET', "runs/$id")->{run};
    return $run->{status} eq 'running' ? undef : $run;
}

sub show_log {
    my ($id) = @_;
    my $response = $http->get("$address/runs/$id/log");
    refuse($response->{status}, $response->{content}) if $response->{status} != 200;
    binmode STDOUT;
    print $response->{content};
}

sub cancel {
    my ($id) = @_;
    my $run = ask('POST', "runs/$id/cancel")->{run};
    print $run->{stopping} ? "run $id is being ended\n" : "run $id $run->{status}\n";
}

sub plan {
    my ($name, $time, @pairs) = @_;
    my $body = { cronName => $name, runAt => $time, params => { pairs(@pairs) } };
    my $answer = ask('POST', 'trigger', $body);
    print "planned $answer->{scheduledId} for $answer->{runAt}\n";
    for my $plan (@{ ask('GET', 'scheduled')->{scheduled} }) {
        print "plan $plan->{id} $plan->{cronName} $plan->{status}\n";
    }
}

sub unplan {
    my ($id) = @_;
    print "plan $id ", ask('DELETE', "scheduled/$id")->{scheduled}{status}, "\n";
}

sub pairs { return map { my ($k, $v) = split /=/, $_, 2; ($k => $v) } @_ }

# Ask; 503 and 429 after a while again, and a lost connection where that is safe.
sub ask {
    my ($method, $path, $body, $more) = @_;
    my %request = (headers => { %{ $more // {} } });
    if ($body) {
        $request{content} = $json->encode($body);
        $request{headers}{'Content-Type'} = 'application/json';
    }
    my $safe = $method eq 'GET' || $request{headers}{'Idempotency-Key'};
    for my $try (1 .. 5) {
        my $response = $http->request($method, "$address/$path", \%request);
        my $status = $response->{status};
        my $later = $status == 503 || $status == 429 || $status == 599 && $safe;
        if ($later && $try < 5) {
            sleep($response->{headers}{'retry-after'} || 2);
            next;
        }
        refuse($status, $response->{content}) if $status !~ /^2/;
        my $answer = $json->decode($response->{content});
        $answer->{again} = $response->{headers}{'idempotent-replay'};
        return $answer;
    }
}

# "Decide by code, show error."
sub refuse {
    my ($status, $content) = @_;
    my $problem = eval { $json->decode($content) } // { error => $content, code => $status };
    print STDERR "$problem->{code}: $problem->{error}\n";
    print STDERR "  $_: $problem->{errors}{$_}\n" for sort keys %{ $problem->{errors} // {} };
    exit 1;
}
