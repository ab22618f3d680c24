<?php
// quiet_client.php URL: prints the lines of a response.
$stream = fopen($argv[1], 'r');
while (($line = fgets($stream)) !== false) {
    echo rtrim($line, "\n"), "\n";
}
