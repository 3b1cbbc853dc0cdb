<?php

// Adminer for this stack's PostgreSQL alone. By itself it connects whoever reaches its port, before any login, to
// whatever server they name.

// A browser sends the name in its address bar, and with a form the page that the form is on. A foreign name that has
// come to mean this host is refused, and so is a form on another page, which could use up the tries of a login.
$host = $_SERVER['HTTP_HOST'] ?? '';
if (
    !preg_match('~^(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?$~D', $host)
    || ($_SERVER['HTTP_ORIGIN'] ?? "http://$host") !== "http://$host"
) {
    http_response_code(403);
    exit('Open this as http://localhost');
}

return new class extends Adminer\Plugin {
    private const DRIVER = 'pgsql';
    private const SERVER = 'db';

    public function __construct()
    {
        if (isset($_POST['auth'])) {
            $_POST['auth']['driver'] = self::DRIVER;
        }
        // The schema that a database is first shown with: the tables that people look for are here, not in public.
        if (isset($_GET['db'])) {
            $_GET += ['ns' => 'claude_oauth'];
        }
    }

    // Whatever was asked for, this is where the password is sent.
    public function credentials()
    {
        return [self::SERVER, $_GET['username'], Adminer\get_password()];
    }

    public function login($login, $password)
    {
        $known = Adminer\DRIVER === self::DRIVER && Adminer\SERVER === self::SERVER;
        return $known ? null : 'This Adminer is for PostgreSQL on the server ' . self::SERVER . '.';
    }

    public function loginFormField($name, $heading, $value)
    {
        return match ($name) {
            'driver' => $heading . 'PostgreSQL',
            'server' => $heading . '<input name="auth[server]" value="' . self::SERVER . '" readonly>',
            'password' => isset($_GET['username'])
                ? "$heading$value<br>If PostgreSQL names a pg_hba.conf entry, password or database is not the right one."
                : null,
            default => null,
        };
    }

    // It asks nobody for a newer version.
    public function csp($csp)
    {
        return array_map(fn ($one) => ['connect-src' => "'self'", 'frame-src' => "'none'"] + $one, $csp);
    }
};
