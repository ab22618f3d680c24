<?php
// quiet_client.php URL: the lines of an answer.
$stream = fopen($argv[1], 'r');
while (($line = fgets($stream)) !== false) {
    echo rtrim($line, "\n"), "\n";
}
